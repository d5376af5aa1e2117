"""Peak host memory of loading a T5 encoder from shards: `published.t5.load`.

    python -m tests.published.t5_memory --layers 4
    python -m tests.published.t5_memory --layers 24     # XXL: 9.5 GB of disk and memory

Writes synthetic shards of T5-XXL's shapes under transformers' names to a temporary
folder, with an index, and loads them in a process of its own, on CPU devices, whose
arrays are host memory too. What is printed is that process's peak resident memory
(VmHWM) less the bytes of the arrays that it ends with: Python, JAX and what loading
holds at once. The bar is 6 GB for XXL.

One array is held at a time: as stored, in float32, and as placed. Of the largest, the
embedding table, these are 0.26 (bfloat16) or 0.53 (float32), 0.53 and 0.26 GB; it comes
first, so that at the end, where the peak is, a feed-forward's kernel is what counts:
0.08 + 0.17 + 0.08 GB. XXL with 8 devices took 0.59 GB above its 9.53 GB (jax 0.10.2),
0.19 GB of them there before loading; 4 layers of float32 shards took 0.58 GB.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

from imagen_jax.checkpoints import safetensors, safetensors_header
from imagen_jax.models import t5
from imagen_jax.published import t5 as published

GB = 1e9
SHARD = 1_000_000_000  # bytes; transformers cuts at 5 GB, or at 10 GB in older files
ROOT = pathlib.Path(__file__).parents[2]


def config_of(module: t5.T5Encoder) -> dict:
    """The config.json of an encoder."""
    sizes = {key: getattr(module, ours) for key, ours in published.SIZES.items()}
    return {"model_type": "t5", "feed_forward_proj": "gated-gelu", **sizes}


def shapes_of(module: t5.T5Encoder) -> dict[str, tuple[int, ...]]:
    """The shapes of the encoder's tensors under transformers' names."""
    d, f, n = module.d_model, module.d_ff, module.num_heads * module.head_dim
    by_end = {
        **{f".{name}.weight": (n, d) for name in "qkv"},
        ".o.weight": (d, n),
        ".wi_0.weight": (f, d),
        ".wi_1.weight": (f, d),
        ".wo.weight": (d, f),
        "norm.weight": (d,),
        "bias.weight": (module.relpos_buckets, module.num_heads),
        "shared.weight": (module.vocab_size, d),
    }
    names = {name for s in published.table(module).values() for name in s.names}
    return {
        name: next(shape for end, shape in by_end.items() if name.endswith(end))
        for name in sorted(names)
    }


def write(folder: pathlib.Path, module: t5.T5Encoder, dtype: str) -> int:
    """Write config, index and shards; returns the bytes of all arrays."""
    kind = safetensors_header.DTYPES[dtype]
    shards, size, total = [{}], 0, 0
    for name, shape in shapes_of(module).items():
        nbytes = int(np.prod(shape)) * kind.itemsize
        if shards[-1] and size + nbytes > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size, total = size + nbytes, total + nbytes
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(shard, file)
        arrays = {name: np.full(shape, 0.01, kind) for name, shape in shard.items()}
        safetensors.save(folder / file, arrays)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config_of(module)))
    return total


def memory() -> dict[str, int]:
    """Resident bytes of this process: now and at its peak."""
    status = pathlib.Path("/proc/self/status").read_text()
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.M))
    return {name: int(kb) * 1024 for name, kb in found.items()}


def measure(folder: str, dtype: str) -> None:
    """Load the folder here and print what it took, as JSON."""
    import jax

    from imagen_jax import partitioning

    mesh = partitioning.make_mesh({"fsdp": len(jax.devices())})
    before, start = memory(), time.perf_counter()
    _, params = published.load(folder, mesh, dtype)
    seconds = time.perf_counter() - start
    placed = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    told = {"before": before["VmRSS"], "peak": memory()["VmHWM"], "placed": placed}
    print(json.dumps({**told, "after": memory()["VmRSS"], "seconds": seconds}))


def main() -> None:
    """Write, load in a child process, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--scale", type=float, default=1.0, help="of all widths")
    parser.add_argument("--stored", default="BF16", help="type in the shards")
    parser.add_argument("--dtype", default="bfloat16", help="type in memory")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--where", help="of the temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        return measure(flags.child, flags.dtype)
    full = t5.XXL
    module = full.clone(
        num_layers=flags.layers,
        d_model=int(full.d_model * flags.scale),
        d_ff=int(full.d_ff * flags.scale),
        num_heads=int(full.num_heads * flags.scale),
    )
    with tempfile.TemporaryDirectory(dir=flags.where) as folder:
        stored = write(pathlib.Path(folder), module, flags.stored)
        count = f"--xla_force_host_platform_device_count={flags.devices}"
        child = ("--child", folder, "--dtype", flags.dtype)
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, *child],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": count},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        got = json.loads(done.stdout.splitlines()[-1])
    sizes = shapes_of(module)
    largest = max(sizes, key=lambda name: np.prod(sizes[name]))
    print(f"layers {flags.layers}, scale {flags.scale}, devices {flags.devices}")
    print(f"shards           {stored / GB:8.3f} GB of {flags.stored}")
    print(f"largest tensor   {largest} {sizes[largest]}")
    print(f"placed arrays    {got['placed'] / GB:8.3f} GB of {flags.dtype}")
    print(f"before loading   {got['before'] / GB:8.3f} GB resident")
    print(f"peak resident    {got['peak'] / GB:8.3f} GB")
    print(f"above the arrays {(got['peak'] - got['placed']) / GB:8.3f} GB")
    print(
        f"  of it loading  {(got['peak'] - got['placed'] - got['before']) / GB:8.3f} GB"
    )
    return None


if __name__ == "__main__":
    main()
