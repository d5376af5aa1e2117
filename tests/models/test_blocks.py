import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import partitioning
from imagen_jax.models import blocks, layers


@pytest.fixture
def x(normal):
    return normal((2, 8, 4, 16), 0)


@pytest.fixture
def emb(normal):
    return normal((2, 6), 1)


def test_pooling_undoes_nearest_up(x):
    np.testing.assert_allclose(layers.average_pool(layers.nearest_up(x)), x, rtol=1e-6)
    assert layers.nearest_up(x)[0, 3, 1, 5] == x[0, 1, 0, 5]


def test_groups_have_four_channels_or_more():
    got = {c: layers.groups(c) for c in (512, 192, 128, 96, 64, 24, 8, 3)}
    assert got == {512: 32, 192: 32, 128: 32, 96: 16, 64: 16, 24: 4, 8: 2, 3: 1}


def rows_and_batch(sizes, shape):
    mesh = partitioning.make_mesh({"data": 1, **sizes})
    with partitioning.use(mesh):
        placed = jax.jit(lambda a: layers.constrain_image(a))(jnp.zeros(shape))
    return placed.sharding.shard_shape(shape)[:2]


def test_constrain_shards_what_divides():
    assert rows_and_batch({"data": 2, "spatial": 4}, (4, 8, 8, 3)) == (2, 2)
    assert rows_and_batch({"spatial": 8}, (1, 16, 8, 3)) == (1, 2)
    assert rows_and_batch({"spatial": 8}, (1, 12, 8, 3)) == (1, 12)


def test_rows_stay_whole_where_an_axis_would_be_idle():
    # A batch of one cannot use the data axis, an image never uses the tensor axis.
    assert rows_and_batch({"data": 2, "spatial": 4}, (1, 8, 8, 3)) == (1, 8)
    assert rows_and_batch({"tensor": 2, "spatial": 4}, (4, 8, 8, 3)) == (4, 8)


@pytest.mark.parametrize(
    "sizes",
    [
        {"spatial": 4, "data": 2},
        {"spatial": 2, "tensor": 4},
        {"fsdp": 2, "tensor": 2, "spatial": 2},
    ],
)
def test_a_block_gives_the_same_on_every_mesh(sizes, x, emb, randomised):
    block = blocks.ResNetBlock(16)
    params = randomised(block, x, emb)

    def loss(params, x):
        y = block.apply(params, layers.constrain_image(x), emb)
        return jnp.mean(y**2)

    expected = jax.jit(jax.value_and_grad(loss))(params, x)
    mesh = partitioning.make_mesh({"data": 1, **sizes})
    boxed = jax.eval_shape(block.init, jax.random.key(0), x, emb)
    with partitioning.use(mesh):
        sharded = jax.device_put(params, partitioning.param_shardings(mesh, boxed))
        got = jax.jit(lambda *args: jax.value_and_grad(loss)(*args))(sharded, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        got,
        expected,
    )
    # Gradients lie where their parameters do.
    jax.tree.map(
        lambda gradient, parameter: np.testing.assert_equal(
            gradient.sharding.shard_shape(gradient.shape),
            parameter.sharding.shard_shape(parameter.shape),
        ),
        got[1]["params"]["conv_0"]["kernel"],
        sharded["params"]["conv_0"]["kernel"],
    )


def test_a_new_block_is_its_shortcut(x, emb, initialised, run):
    block = blocks.ResNetBlock(16)
    params = initialised(block, x, emb)
    np.testing.assert_array_equal(run(block, params, x, emb), x)
    scaled = blocks.ResNetBlock(16, residual_scaling=True)
    np.testing.assert_allclose(run(scaled, params, x, emb), x / np.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("resample", ["down", "up"])
def test_resampling_acts_on_both_paths(resample, x, emb, initialised, randomised, run):
    block = blocks.ResNetBlock(16, resample=resample)
    new = initialised(block, x, emb)
    change = {"down": layers.average_pool, "up": layers.nearest_up}[resample]
    shortcut = np.asarray(change(x))
    np.testing.assert_allclose(run(block, new, x, emb), shortcut, rtol=1e-6)
    full = run(block, randomised(block, x, emb), x, emb)
    assert full.shape == shortcut.shape and np.abs(full - shortcut).max() > 1e-1


@pytest.mark.parametrize("scaling", [False, True])
def test_a_feed_forward_is_gated_and_starts_as_nothing(scaling, x, randomised, run):
    module = blocks.FeedForward(24, residual_scaling=scaling)
    new = module.init(jax.random.key(0), x)
    share = 2**-0.5 if scaling else 1.0
    np.testing.assert_allclose(run(module, new, x), share * x, rtol=1e-6)
    params = randomised(module, x)
    p = jax.tree.map(np.asarray, params["params"])
    h = np.asarray(x).reshape(2, 32, 4, 4)  # four groups of four channels
    h = h - h.mean((1, 3), keepdims=True)
    h = (h / np.sqrt((h**2).mean((1, 3), keepdims=True) + 1e-5)).reshape(x.shape)
    h = h * p["norm"]["scale"] + p["norm"]["bias"]
    gate, value = (h @ p[k]["kernel"] + p[k]["bias"] for k in ("gate", "value"))
    h = (gate / (1 + np.exp(-gate)) * value) @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(
        run(module, params, x), share * (x + h), rtol=1e-3, atol=1e-4
    )


def test_a_feed_forward_joins_the_embedding_with_the_place(x, emb, randomised, run):
    module = blocks.FeedForward(24, positions="coordinates")
    same = jnp.ones_like(x)  # after the norm nothing tells one position from another
    params = randomised(module, same, emb)
    one, other = run(module, params, same, emb), run(module, params, same, -emb)
    change = one - other
    assert np.abs(change).max() > 1e-2
    assert np.abs(change - change[:, :1, :1]).max() > 1e-2
    blind = run(blocks.FeedForward(24), without(params, "positions"), same, emb)
    np.testing.assert_allclose(blind, blind[:, :1, :1] + 0 * blind, rtol=1e-5)


def without(params, name):
    return {"params": {k: v for k, v in params["params"].items() if k != name}}


def test_the_embedding_scales_and_shifts(x, run):
    module = blocks.ScaleShift()
    emb = jnp.array([[1.0], [0.0]])
    kernel = np.repeat(np.array([[2.0, 5.0]], np.float32), 16, axis=1)
    params = {"params": {"dense": {"kernel": kernel, "bias": np.zeros(32)}}}
    got = run(module, params, x, emb)
    np.testing.assert_allclose(got[0], 3 * np.asarray(x[0]) + 5, rtol=1e-5)
    np.testing.assert_array_equal(got[1], x[1])


def shapes_of(module, *inputs):
    y, params = jax.eval_shape(module.init_with_output, jax.random.key(0), *inputs)
    return y, set(params["params"])


def test_d_and_u_blocks_halve_and_double(x, emb):
    y, names = shapes_of(blocks.DBlock(32, 1), x, emb)
    assert y.shape == (2, 4, 2, 32) and names == {"down", "res_0"}
    y, names = shapes_of(blocks.UBlock(32, 2, out_channels=8), y, emb)
    assert y.shape == (2, 8, 4, 8) and names == {"res_0", "res_1", "up"}
    y, names = shapes_of(blocks.DBlock(16, 1, stride=1), x, emb)
    assert y.shape == x.shape and names == {"res_0"}


def test_the_embedding_enters_once_a_block_if_asked(x, emb, randomised, run):
    down = blocks.DBlock(16, 2, combine="block")
    params = randomised(down, x, emb)
    assert "embedding" in params["params"]
    assert "embedding" not in params["params"]["res_0"]
    moved = run(down, params, x, emb + 1) - run(down, params, x, emb)
    assert np.abs(moved).max() > 1e-2


def test_dropout_acts_only_with_its_stream(x, emb, randomised):
    block = blocks.ResNetBlock(16, dropout=0.5)
    params = randomised(block, x, emb)
    apply = jax.jit(block.apply)
    still = apply(params, x, emb)
    np.testing.assert_array_equal(still, apply(params, x, emb))
    dropped = apply(params, x, emb, rngs={"dropout": jax.random.key(3)})
    assert np.abs(dropped - still).max() > 1e-2


def test_an_unknown_remat_is_refused():
    with pytest.raises(ValueError, match="remat: must be one of"):
        blocks.rematerialised(blocks.ResNetBlock, "all")


def test_space_to_depth_is_exact(normal):
    z = normal((1, 8, 12, 3), 0)
    folded = layers.space_to_depth(z, 4)
    assert folded.shape == (1, 2, 3, 48)
    np.testing.assert_array_equal(
        np.asarray(folded)[0, 1, 2].reshape(4, 4, 3), z[0, 4:8, 8:12]
    )
    np.testing.assert_array_equal(layers.depth_to_space(folded, 4), z)
