"""The command on a small slice: three programs for chips that are not here."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

# Wide enough that what is gathered in float32, the noise level's embedding, is little.
TINY = (
    "--config.network.channels=128",
    "--config.network.channel_mult=(1,)",
    "--config.network.num_res_blocks=1",
    "--config.network.attention_levels=()",
    "--config.network.text_features=128",
    "--config.text.encoder.d_model=128",
    "--config.text.length=16",
    "--config.stage.resolution=16",
    "--config.data.embeddings=ahead",
    "--config.training.max_replicated=0.2",
)
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU compiler, is not installed (pip install libtpu)",
)


def plan(*flags):
    """A process of its own: the TPU's compiler wants an environment of its own."""
    command = [sys.executable, "-m", "imagen_jax", "plan", "--config=imagen/base_64"]
    return subprocess.run(
        [*command, *flags, *TINY],
        capture_output=True,
        text=True,
        timeout=600,
        # libtpu knows not all of the flags that the suite compiles with.
        env={**os.environ, "IMAGEN_JAX_TYPECHECK": "0", "XLA_FLAGS": ""},
    )


@needs_libtpu
@pytest.mark.slow
def test_a_sharded_step_gathers_its_kernels_in_bfloat16_and_scatters_gradients():
    flags = ("--topology=v5litepod-4", "--mesh=fsdp=4", "--batch=16")
    done = plan(*flags, "--optimization=O1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"] and found["chips"] == 4 and found["mesh"] == {"fsdp": 4}
    assert 0 < found["peak_bytes"] < found["memory_bytes"]
    parts = found["parts"]
    # Float32 masters in four parts, but for what is small.
    assert 4 * found["parameters"] / 4 <= parts["parameters"]
    assert parts["parameters"] < 1.3 * found["parameters"]
    assert parts["average"] == parts["parameters"]
    assert sum(parts.values()) == found["peak_bytes"]
    assert found["flops"] > 0 and found["days"] > 0 and found["sorts"] == 0
    traffic = found["traffic"]
    # No ring of permutes in place of a gather, no exchange of activations.
    assert "all-to-all" not in traffic
    assert traffic.get("collective-permute", {"bytes": 0})["bytes"] == 0
    # Kernels gathered twice and gradients scattered once, two bytes a number each.
    least = 3 * 2 * found["parameters"]
    assert found["least_bytes"] == least
    assert 0.5 * least < found["collective_bytes"] < 1.3 * least


@needs_libtpu
@pytest.mark.slow
def test_a_whole_sampler_sorts_nothing_and_says_what_it_needs():
    flags = ("--topology=v5e:1x1", "--program=sample", "--mesh=data=1")
    done = plan(*flags, "--batch=2", "--optimization=O1", "--config.sampling.steps=3")
    assert done.returncode == 0, done.stderr
    assert "FITS: peak" in done.stdout
    assert "collectives: none" in done.stdout
    assert "not an estimate" in done.stdout


def in_a_process(code):
    """The TPU's compiler, once loaded, ends a process that begins to profile."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


THRESHOLDING = """
import json
from imagen_jax.planning import topologies
topologies.prepare_environment()
import jax
import jax.numpy as jnp
from imagen_jax import partitioning
from imagen_jax.diffusion import thresholding
from imagen_jax.planning import hlo, schedule
chip = topologies.devices(topologies.parse("v5e:1x1"))
place = partitioning.replicated(partitioning.make_mesh({"data": 1}, chip))
x = jax.ShapeDtypeStruct((1, 1024, 1024, 3), jnp.float32, sharding=place)
compiled = jax.jit(thresholding.dynamic).lower(x).compile()
sorts = schedule.sorts(hlo.parse(compiled.as_text()))
print(json.dumps([compiled.memory_analysis().temp_size_in_bytes, sorts]))
"""


@needs_libtpu
def test_dynamic_thresholding_of_a_megapixel_takes_little_memory_and_no_sort():
    size, sorts = json.loads(in_a_process(THRESHOLDING))
    assert 0 < size < 50e6 and sorts == 0


MESHES = """
from imagen_jax.planning import topologies
topologies.prepare_environment()
from imagen_jax import partitioning
one = topologies.devices(topologies.parse("v4:4x8x8"))
mesh = partitioning.make_mesh({"data": -1, "fsdp": 16}, one)
assert mesh.devices.size == 256 and mesh.shape["data"] == 16, mesh
two = topologies.devices(topologies.parse("v5e:2x4", slices=2))
mesh = partitioning.make_mesh({"slices": 2, "data": -1, "fsdp": 4}, two)
rows = mesh.devices.reshape(4, 4)
assert [len({d.slice_index for d in row}) for row in rows] == [1] * 4, rows
assert [row[0].slice_index for row in rows] == [0, 0, 1, 1], rows
"""


@needs_libtpu
def test_a_torus_is_split_as_asked_and_only_data_crosses_slices():
    in_a_process(MESHES)
