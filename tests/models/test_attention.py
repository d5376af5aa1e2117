import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from imagen_jax import partitioning
from imagen_jax.models import attention, embeddings
from imagen_jax.planning import collectives, hlo


def reference(q, k, v, mask):
    """Loops over examples and heads, in float64."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    out = np.zeros_like(q)
    for b in range(q.shape[0]):
        keep = np.asarray(mask[b])
        for n in range(q.shape[2]):
            logits = q[b, :, n] @ k[b, keep, n].T / np.sqrt(q.shape[-1])
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            out[b, :, n] = weights @ v[b, keep, n]
    return out


@pytest.fixture
def qkv(normal):
    return [normal((2, n, 3, 4), n + i) for i, n in enumerate((5, 7, 7))]


def test_attend_is_softmax_attention(qkv):
    mask = np.array([[True] * 7, [True, False, True, True, False, True, False]])
    got = jax.jit(attention.attend)(*qkv, mask)
    np.testing.assert_allclose(got, reference(*qkv, mask), atol=1e-6)
    got = jax.jit(attention.attend)(*qkv)
    np.testing.assert_allclose(got, reference(*qkv, mask | True), atol=1e-6)


def test_the_softmax_is_float32_in_bfloat16(qkv):
    jaxpr = jax.make_jaxpr(attention.attend)(*(a.astype(jnp.bfloat16) for a in qkv))
    exponentials = [line for line in str(jaxpr).splitlines() if "= exp " in line]
    assert exponentials and all("f32" in line for line in exponentials)
    assert jaxpr.out_avals[0].dtype == jnp.bfloat16


def test_nothing_to_attend_to_gives_zero(qkv):
    mask = np.zeros((2, 7), bool)
    assert np.all(np.asarray(jax.jit(attention.attend)(*qkv, mask)) == 0)


def test_two_sets_of_keys_are_one(qkv):
    q, k, v = qkv
    mask = np.array([[True, False, True], [False] * 3])
    whole = np.concatenate([np.ones((2, 4), bool), mask], axis=1)
    image, text = (k[:, :4], v[:, :4]), (k[:, 4:], v[:, 4:])
    attend = jax.jit(attention.attend_to_both)
    got = attend(q, image, text, mask)
    np.testing.assert_allclose(got, reference(q, k, v, whole), atol=1e-6)
    got = attend(q, image, text)
    np.testing.assert_allclose(got, reference(q, k, v, whole | True), atol=1e-6)


def test_self_attention_joins_the_keys_of_image_and_text(normal, randomised, run):
    layer = attention.Attention("self", heads=2, width=8)
    x, text = normal((2, 3, 2, 16), 1), normal((2, 4, 6), 2)
    mask = np.arange(4)[None] < np.array([[4], [1]])
    params = randomised(layer, x, text, mask)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])

    def norm(a, axes):
        mean, var = a.mean(axes, keepdims=True), a.var(axes, keepdims=True)
        return (a - mean) / np.sqrt(var + 1e-5)

    def dense(a, name, before=None):
        if before:
            a = a * p[before]["scale"] + p[before]["bias"]
        return a @ p[name]["kernel"] + p[name]["bias"]

    h = norm(np.asarray(x, np.float64).reshape(2, 6, 4, 4), (1, 3)).reshape(2, 6, 16)
    h = dense(h, "qkv", "norm").reshape(2, 6, 2, 3, 4)
    t = norm(np.asarray(text, np.float64), 2)
    t = dense(t, "text_kv", "text_norm").reshape(2, 4, 2, 2, 4)
    k = np.concatenate([h[:, :, :, 1], t[:, :, :, 0]], axis=1)
    v = np.concatenate([h[:, :, :, 2], t[:, :, :, 1]], axis=1)
    seen = np.concatenate([np.ones((2, 6), bool), mask], axis=1)
    out = dense(reference(h[:, :, :, 0], k, v, seen).reshape(2, 6, 8), "out")
    got = run(layer, params, x, text, mask)
    np.testing.assert_allclose(got, np.asarray(x) + out.reshape(x.shape), atol=1e-5)


@pytest.mark.parametrize("kind", ["self", "text"])
def test_masked_tokens_do_not_matter(kind, normal, randomised, run):
    layer = attention.Attention(kind, heads=2, width=8, positions="coordinates")
    x, text = normal((1, 4, 4, 8), 1), normal((1, 5, 6), 2)
    mask = np.array([[True, True, False, True, False]])
    params = randomised(layer, x, text, mask)
    got = run(layer, params, x, text, mask)
    kept = run(layer, params, x, text[:, np.array([0, 1, 3])])
    np.testing.assert_allclose(got, kept, atol=1e-5)


@pytest.mark.parametrize("kind", ["self", "text"])
def test_only_coordinates_tell_positions_apart(kind, normal, randomised, run):
    def swap_error(positions):
        layer = attention.Attention(kind, 2, 8, positions=positions)
        x, text = normal((1, 4, 6, 8), 1), normal((1, 5, 6), 2)
        params = randomised(layer, x, text)
        y = run(layer, params, x, text)
        return np.abs(run(layer, params, x[:, ::-1], text) - y[:, ::-1]).max()

    assert swap_error("none") < 1e-5
    assert swap_error("coordinates") > 1e-2


def test_text_attention_sees_one_position_at_a_time(normal, randomised):
    # The derivative of one position's result with respect to another's queries: with
    # the norm's statistics fixed by a huge image, only self-attention has any.
    def influence(kind):
        layer = attention.Attention(kind, heads=2, width=8)
        x, text = normal((1, 16, 16, 8), 1), normal((1, 5, 6), 2)
        params = randomised(layer, x, text)

        def far(x):
            return layer.apply(params, x, text)[0, 0, 0].sum()

        return np.abs(jax.jit(jax.grad(far))(x))[0, 8:, 8:].max()

    assert influence("text") < 0.1 * influence("self")


def test_without_text_there_are_no_text_parameters():
    x = jnp.zeros((1, 4, 4, 8))

    def names(kind):
        layer = attention.Attention(kind, 2, 8)
        shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
        return set(shapes.get("params", {}))

    assert names("self") == {"norm", "qkv", "out"}
    assert names("text") == set()


def test_a_text_map_is_attention_by_coordinates_alone(normal):
    layer = attention.TextMap(width=8, heads=2)
    text, mask = normal((2, 5, 6), 1), jnp.arange(5)[None] < jnp.array([[5], [3]])
    size = {"height": 2, "width": 4}
    shapes = jax.eval_shape(
        functools.partial(layer.init, **size), jax.random.key(0), text, mask
    )
    params = jax.tree.map(lambda a: normal(a.shape, a.size) / 3, nn.unbox(shapes))
    made = jax.jit(functools.partial(layer.apply, **size))
    assert not np.any(made(params, text, jnp.zeros_like(mask)))

    weights = jax.tree.map(np.asarray, params["params"])
    assert set(weights) == {"text_norm", "text_kv", "query"}
    t = np.asarray(text)
    t = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-5)
    t = t * weights["text_norm"]["scale"] + weights["text_norm"]["bias"]
    t = t @ weights["text_kv"]["kernel"] + weights["text_kv"]["bias"]
    t = t.reshape(2, 5, 2, 2, 4)
    q = np.asarray(embeddings.coordinates(2, 4)) @ weights["query"]["kernel"]
    q = (q + weights["query"]["bias"]).reshape(1, 8, 2, 4).repeat(2, axis=0)
    expected = reference(q, t[:, :, :, 0], t[:, :, :, 1], mask).reshape(2, 2, 4, 8)
    np.testing.assert_allclose(made(params, text, mask), expected, atol=1e-5)


def test_attention_to_text_leaves_rows_where_they_are(randomised, normal):
    module = attention.Attention("text", 2, 16)
    x, text = normal((1, 8, 8, 8), 0), normal((1, 5, 12), 1)
    params = randomised(module, x, text)
    mesh = partitioning.make_mesh({"data": 1, "spatial": 8})
    rows = NamedSharding(mesh, PartitionSpec(None, "spatial"))
    with partitioning.use(mesh):
        placed = jax.device_put(x, rows)
        apply = jax.jit(lambda x: module.apply(params, x, text))
        compiled = apply.lower(placed).compile()
        got = compiled(placed)
    assert got.sharding.shard_shape(got.shape) == (1, 1, 8, 8)
    traffic = collectives.count(hlo.parse(compiled.as_text()))
    # The norm's sums alone cross from chip to chip.
    assert set(traffic) == {"all-reduce"} and traffic["all-reduce"].largest <= 64
    np.testing.assert_allclose(got, module.apply(params, x, text), atol=1e-5)
