"""How far a T5 encoder's embeddings are from float32's in bf16, fp16 and int8.

    python -m tests.published.t5_precision                      # random, SMALL's sizes
    python -m tests.published.t5_precision --folder T5_FOLDER   # published weights

"int8" is weights stored in eight bits with a scale a column, restored to float32
before use (`checkpoints.quantisation`); the others are kernels and activations in that
type. Printed is the relative error |a - b| / |b| over all tokens, and the worst of any
token. On CPU (jax 0.10.2), random weights gave bfloat16 1.3e-2, float16 1.1e-3 and int8
2.7e-2; published weights were not tried.
"""

import argparse
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from imagen_jax import partitioning
from imagen_jax.checkpoints import quantisation, safetensors
from imagen_jax.models import layers, t5
from imagen_jax.published import t5 as published


def errors(
    module: t5.T5Encoder, params: Any, ids: np.ndarray, mask: np.ndarray
) -> dict[str, tuple[float, float]]:
    """(relative error of all tokens, of the worst) by the type of the weights.

    Args:
      module: of any type.
      params: float32.
      ids, mask: [B, L].
    """

    def encode(dtype: str, params: Any) -> np.ndarray:
        return np.asarray(_encode(module.clone(dtype=dtype), params, ids, mask))[mask]

    exact = encode("float32", params)
    stored = quantisation.quantise(
        safetensors.flatten(jax.tree.map(np.asarray, params))
    )
    eight = safetensors.unflatten(quantisation.restore(stored))
    got = {
        "bfloat16": encode("bfloat16", layers.stored(params, "bfloat16")),
        "float16": encode("float16", layers.stored(params, "float16")),
        "int8": encode("float32", eight),
    }
    size = np.linalg.norm(exact, axis=-1)
    found = {}
    for name, values in got.items():
        off = np.linalg.norm(values - exact, axis=-1)
        whole = np.linalg.norm(off) / np.linalg.norm(size)
        found[name] = float(whole), float((off / size).max())
    return found


@functools.partial(jax.jit, static_argnums=0)
def _encode(module: t5.T5Encoder, params: Any, ids: np.ndarray, mask: np.ndarray):
    return module.apply({"params": params}, ids, mask)


def random_params(module: t5.T5Encoder, length: int) -> Any:
    """Parameters as T5's training begins with them."""
    ids = np.zeros((1, length), np.int32)
    init = jax.jit(lambda key: nn.unbox(module.init(key, ids, ids == 0)["params"]))
    return init(jax.random.key(0))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="", help="of Hugging Face or t5x")
    parser.add_argument("--length", type=int, default=64)
    flags = parser.parse_args()
    if flags.folder:
        mesh = partitioning.make_mesh({"fsdp": 1}, jax.devices()[:1])
        module, params = published.load(flags.folder, mesh, "float32")
    else:
        module, params = t5.SMALL, random_params(t5.SMALL, flags.length)
    rng = np.random.default_rng(0)
    ids = rng.integers(3, module.vocab_size, (4, flags.length)).astype(np.int32)
    mask = np.arange(flags.length) < np.array([[64], [32], [16], [5]])
    for name, (whole, worst) in errors(module, params, ids, mask).items():
        print(f"{name:9s} relative error {whole:.2e}, worst token {worst:.2e}")


if __name__ == "__main__":
    main()
