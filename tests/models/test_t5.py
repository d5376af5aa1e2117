import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from imagen_jax import partitioning
from imagen_jax.checkpoints import safetensors
from imagen_jax.models import layers, t5

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "t5.npz"
TINY = t5.T5Encoder(
    vocab_size=20, d_model=12, num_layers=2, num_heads=2, head_dim=4, d_ff=16
)


def shapes_of(module):
    ids, mask = np.zeros((1, 4), np.int32), np.ones((1, 4), bool)
    return jax.eval_shape(
        lambda key: module.init(key, ids, mask)["params"], jax.random.key(0)
    )


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@functools.cache
def jitted(module):
    return jax.jit(module.apply)


@pytest.fixture(scope="module")
def tiny():
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 20, (3, 9)).astype(np.int32)
    mask = np.arange(9) < np.array([[9], [4], [1]])
    init = jax.jit(lambda key: nn.unbox(TINY.init(key, ids, mask)["params"]))
    return init(jax.random.key(0)), ids, mask


@pytest.mark.parametrize(
    ("case", "heads", "head_dim"), [("t5", 3, 10), ("byt5", 2, 12)]
)
def test_encoder_equals_transformers(case, heads, head_dim):
    # tests/golden/make_t5.py says how the file was made. float32 sums in another order
    # on values of size 1: 1e-5.
    data = np.load(GOLDEN)
    prefix = f"{case}/params/"
    params = {k.removeprefix(prefix): data[k] for k in data if k.startswith(prefix)}
    ids, mask = data[f"{case}/ids"], data[f"{case}/mask"]
    vocab, d_model = params["token_embedder/embedding"].shape
    module = t5.T5Encoder(vocab, d_model, 2, heads, head_dim, 40)
    output = jax.jit(module.apply)({"params": safetensors.unflatten(params)}, ids, mask)
    assert ids.shape[1] > 128 or case == "byt5"
    assert np.abs(output).max() > 1
    np.testing.assert_allclose(output, data[f"{case}/output"], atol=1e-5, rtol=0)


def test_parameter_names_are_those_of_t5x():
    layer = {
        *(f"attention/{n}/kernel" for n in ("query", "key", "value", "out")),
        *(f"mlp/{n}/kernel" for n in ("wi_0", "wi_1", "wo")),
        "pre_attention_layer_norm/scale",
        "pre_mlp_layer_norm/scale",
    }
    expected = {
        "token_embedder/embedding",
        "encoder/relpos_bias/rel_embedding",
        "encoder/encoder_norm/scale",
        *(f"encoder/layers_{i}/{name}" for i in range(2) for name in layer),
    }
    assert set(safetensors.flatten(nn.unbox(shapes_of(TINY)))) == expected


def test_the_first_t5_has_one_kernel_and_no_gate():
    tree = safetensors.flatten(nn.unbox(shapes_of(TINY.clone(gated=False))))
    mlp = "encoder/layers_0/mlp"
    assert {k for k in tree if k.startswith(mlp)} == {
        f"{mlp}/wi/kernel",
        f"{mlp}/wo/kernel",
    }


def test_parameters_are_sharded_by_the_axes_of_t5x():
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})
    shardings = partitioning.param_shardings(mesh, shapes_of(TINY))
    specs = {k: s.spec for k, s in safetensors.flatten(shardings).items()}
    layer = "encoder/layers_0"
    assert specs["token_embedder/embedding"] == P("tensor", "fsdp")
    assert specs["encoder/relpos_bias/rel_embedding"] == P("tensor", None)
    for name in ("attention/query", "attention/key", "mlp/wi_0", "mlp/wi_1"):
        assert specs[f"{layer}/{name}/kernel"] == P("fsdp", "tensor")
    for name in ("attention/out", "mlp/wo"):
        assert specs[f"{layer}/{name}/kernel"] == P("tensor", "fsdp")


@pytest.mark.parametrize("sizes", [{"tensor": 2, "fsdp": 4}, {"data": 2, "fsdp": 4}])
def test_every_mesh_encodes_alike(sizes, tiny):
    params, ids, mask = tiny
    expected = jitted(TINY)({"params": params}, ids, mask)
    mesh = partitioning.make_mesh({"data": 1, **sizes})
    placed = partitioning.place_params(mesh, shapes_of(TINY), params)
    wi = placed["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    assert wi.addressable_shards[0].data.shape == (3, 16 // sizes.get("tensor", 1))
    with partitioning.use(mesh):
        got = jax.jit(lambda p: TINY.apply({"params": p}, ids, mask))(placed)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [
        # Encoder halves of the published sizes; Imagen reports 4.6e9 for XXL.
        ("SMALL", 35e6, 36e6),
        ("BASE", 109e6, 110e6),
        ("LARGE", 341e6, 342e6),
        ("XL", 1.22e9, 1.23e9),
        ("XXL", 4.6e9, 4.8e9),
        ("BYT5_SMALL", 217e6, 218e6),
        # With decoders of a third of the layers: 582M, 1.23B, 3.74B and 12.9B.
        ("BYT5_BASE", 414e6, 415e6),
        ("BYT5_LARGE", 863e6, 865e6),
        ("BYT5_XL", 2.61e9, 2.62e9),
        ("BYT5_XXL", 8.98e9, 9.0e9),
        # T5 1.0's with their decoders: 60M, 220M, 770M, 2.8B and 11B.
        ("T5_SMALL", 35e6, 36e6),
        ("T5_BASE", 109e6, 110e6),
        ("T5_LARGE", 334e6, 335e6),
        ("T5_3B", 1.24e9, 1.25e9),
        ("T5_11B", 4.85e9, 4.87e9),
    ],
)
def test_presets_have_the_published_sizes(preset, low, high):
    def by_hand(module):
        d, n = module.d_model, module.num_heads * module.head_dim
        layer = 4 * d * n + (3 if module.gated else 2) * d * module.d_ff + 2 * d
        table = d * (module.vocab_size + 1)
        buckets = module.num_heads * module.relpos_buckets
        return module.num_layers * layer + table + buckets

    module = getattr(t5, preset)
    short = module.clone(num_layers=2)
    assert count(shapes_of(short)) == by_hand(short)
    assert low < by_hand(module) < high


def test_padding_changes_nothing(tiny):
    params, ids, mask = tiny
    output = jitted(TINY)({"params": params}, ids, mask)
    other = jitted(TINY)({"params": params}, np.where(mask, ids, 7), mask)
    np.testing.assert_array_equal(output[mask], other[mask])
    alone = jitted(TINY)({"params": params}, ids[1:2, :4], mask[1:2, :4])
    np.testing.assert_allclose(output[1:2, :4], alone, atol=1e-6)


def test_a_wholly_masked_text_stays_finite(tiny):
    params, ids, mask = tiny
    assert np.isfinite(jitted(TINY)({"params": params}, ids, mask & False)).all()


def test_order_of_tokens_matters(tiny):
    params, ids, _ = tiny
    mask = np.ones_like(ids, bool)
    output = jitted(TINY)({"params": params}, ids, mask)
    mirrored = jitted(TINY)({"params": params}, ids[:, ::-1], mask)[:, ::-1]
    assert np.abs(output - mirrored).max() > 1e-2


def test_remat_changes_neither_values_nor_gradients(tiny):
    params, ids, mask = tiny

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.value_and_grad, argnums=1)
    def graded(module, params):
        return (module.apply({"params": params}, ids, mask) ** 2)[0, 0].sum()

    values, grads = graded(TINY, params)
    values2, grads2 = graded(TINY.clone(remat="block"), params)
    np.testing.assert_allclose(values, values2, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, grads2
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, "bfloat16"])
def test_bfloat16_activations_give_a_float32_result(tiny, dtype):
    params, ids, mask = tiny
    exact = jitted(TINY)({"params": params}, ids, mask)
    half = jitted(TINY.clone(dtype=dtype))({"params": params}, ids, mask)
    assert half.dtype == jnp.float32
    # bfloat16 has 8 bits; values are of size 1 after the last norm.
    np.testing.assert_allclose(half, exact, atol=0.15)


def test_float16_holds_what_overflows_float16(tiny):
    params, ids, mask = tiny

    def louder(path, a):
        # Inputs of wo past 65,504, although neither factor is, and results far past.
        gain = {"wi_0": 1e3, "wi_1": 1e3, "wo": 1e2}.get(path[-2].key, 1.0)
        return a * gain

    loud = jax.tree_util.tree_map_with_path(louder, params)

    def spied(params):
        names = ("wi_0", "wi_1", "mlp")
        return TINY.apply(
            {"params": params},
            ids,
            mask,
            capture_intermediates=lambda module, _: module.name in names,
        )

    exact, seen = jax.jit(spied)(loud)
    mlp = seen["intermediates"]["encoder"]["layers_0"]["mlp"]
    gate, y = (mlp[name]["__call__"][0] for name in ("wi_0", "wi_1"))
    assert max(np.abs(gate).max(), np.abs(y).max()) < 65504
    assert np.abs(nn.gelu(gate) * y).max() > 65504
    assert np.abs(mlp["__call__"][0]).max() > 65504
    half = TINY.clone(dtype=jnp.float16)
    got = jitted(half)({"params": layers.stored(loud, jnp.float16)}, ids, mask)
    assert got.dtype == jnp.float32
    # float16 has 11 bits; values are of size 1 after the last norm.
    np.testing.assert_allclose(got[mask], exact[mask], atol=2e-2)
    assert np.abs(got[mask] - exact[mask]).max() > 0


def test_buckets_are_exact_near_and_logarithmic_far():
    bucket = t5.relative_position_bucket(300, 32, 128)
    assert bucket[0, 0] == 0
    np.testing.assert_array_equal(bucket[8, :8], np.arange(8, 0, -1).clip(max=8))
    assert bucket[8, 9] == 17  # keys after the query begin at 16
    assert bucket[200, 0] == bucket[140, 0] == 15
    assert bucket[0, 200] == bucket[0, 299] == 31
    # Edges at 8 * 16 ** (k / 8): distance 16 begins the third coarse bucket.
    assert (bucket[15, 0], bucket[16, 0], bucket[32, 0]) == (9, 10, 12)


def test_a_language_model_keeps_the_encoder_as_a_subtree():
    module = t5.MaskedLanguageModel(TINY)
    tree = nn.unbox(shapes_of(module))
    heads = {"logits_dense", "previous_dense", "next_dense"}
    assert set(tree) == {"encoder", *heads}
    ours = jax.tree.map(lambda a: a.shape, tree["encoder"])
    assert ours == jax.tree.map(lambda a: a.shape, nn.unbox(shapes_of(TINY)))
