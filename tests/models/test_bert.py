import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from imagen_jax import partitioning
from imagen_jax.checkpoints import safetensors, tensors
from imagen_jax.published import bert as published

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "bert"
MODULE = published.text_module(json.loads((FOLDER / "config.json").read_text()))


@pytest.fixture(scope="module")
def expected():
    return np.load(FOLDER / "expected.npz")


@pytest.fixture(scope="module")
def inputs(expected):
    return expected["ids"].astype(np.int32), expected["mask"]


@pytest.fixture(scope="module")
def params():
    part = published.convert([str(FOLDER)]).parts[0]
    return tensors.transfer(part.tensors, part.table, part.shapes, unused=part.unused)


@pytest.fixture(scope="module")
def encode(params):
    apply = jax.jit(MODULE.apply)
    return lambda ids, mask: np.asarray(apply({"params": params}, ids, mask))


def test_values_equal_transformers(expected, inputs, encode):
    # tests/golden/make_bert.py says how the file was made; a batch with padding.
    # float32 sums in another order on values of size 1: 1e-5.
    mask = inputs[1]
    assert (mask.sum(1) == 2).any() and mask[-1].all()
    wanted = expected["last"]
    assert np.abs(wanted).max() > 1
    got = encode(*inputs)
    np.testing.assert_allclose(got[mask], wanted[mask], atol=1e-5, rtol=0)


def test_padding_changes_nothing_and_a_masked_text_is_finite(inputs, encode):
    ids, mask = inputs
    other = encode(np.where(mask, ids, 7), mask)
    np.testing.assert_array_equal(encode(ids, mask)[mask], other[mask])
    assert np.isfinite(encode(ids, mask & False)).all()


def test_a_token_sees_later_ones(inputs, encode):
    ids, mask = inputs
    changed = ids.copy()
    changed[-1, 10] += 1
    assert (
        np.abs(encode(changed, mask)[-1, :10] - encode(ids, mask)[-1, :10]).max() > 1e-3
    )


def test_parameters_are_sharded_by_their_axes():
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})
    ids = np.zeros((1, 3), np.int32)
    module = MODULE.clone(vocab_size=270)  # 269 rows stay whole
    boxed = jax.eval_shape(module.init, jax.random.key(0), ids, ids == 0)["params"]
    found = safetensors.flatten(partitioning.param_shardings(mesh, boxed))
    specs = {name: sharding.spec for name, sharding in found.items()}
    assert specs["token_embedder/embedding"] == P("tensor", "fsdp")
    for name in ("position_embedding", "segment_embedding"):
        assert specs[name] == P(None, "fsdp")
    for name in ("attention/query", "attention/key", "attention/value", "mlp/wi"):
        assert specs[f"layers_2/{name}/kernel"] == P("fsdp", "tensor")
    for name in ("attention/out", "mlp/wo"):
        assert specs[f"layers_2/{name}/kernel"] == P("tensor", "fsdp")


def test_bfloat16_activations_give_a_float32_result(inputs, params, expected):
    module = MODULE.clone(dtype=jnp.bfloat16)
    got = jax.jit(module.apply)({"params": params}, *inputs)
    assert got.dtype == jnp.float32
    mask = inputs[1]
    # bfloat16 has 8 bits; values are of size 1 after the last norm.
    np.testing.assert_allclose(got[mask], expected["last"][mask], atol=0.2)
    assert np.abs(got[mask] - expected["last"][mask]).mean() < 0.02


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_length": 2}, "texts may have 2 tokens"),
        ({"activation": "relu"}, "activation must be one of"),
        ({"num_heads": 7}, "multiple of num_heads"),
    ],
)
def test_what_cannot_be_made_is_said(fields, message):
    ids = np.zeros((1, 3), np.int32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(MODULE.clone(**fields).init, jax.random.key(0), ids, ids == 0)
