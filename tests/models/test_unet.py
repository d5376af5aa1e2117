import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.models import blocks, unet

T = jnp.array([0.3, 0.8])


def tiny(**changes):
    fields = {
        "channels": 8,
        "channel_mult": (1, 2),
        "num_res_blocks": (1, 1),
        "attention_levels": (1,),
        "head_dim": 8,
        "positions": "coordinates",
        "skip_scaling": True,
    }
    return unet.UNet(**{**fields, **changes})


@pytest.fixture
def z(normal):
    return normal((2, 8, 8, 3), 7)


def test_a_new_network_gives_zero(z, make_cond, initialised, run):
    net, cond = tiny(), make_cond(8, 8)
    params = initialised(net, z, T, cond)
    y = run(net, params, z, T, cond)
    assert y.shape == z.shape and y.dtype == np.float32
    assert np.all(y == 0)


def test_text_and_noise_level_and_places_reach_the_output(
    z, make_cond, randomised, run
):
    net = tiny()
    cond = make_cond(8, 8)
    params = randomised(net, z, T, cond)
    y = run(net, params, z, T, cond)
    assert np.isfinite(y).all() and y.std() > 0.1
    garbage = dataclasses.replace(
        cond, tokens=jnp.where(cond.mask[:, :, None], cond.tokens, 1e3)
    )
    np.testing.assert_allclose(run(net, params, z, T, garbage), y, atol=1e-5)
    other = dataclasses.replace(cond, tokens=jnp.roll(cond.tokens, 1, axis=2))
    for inputs in ((z, T, other), (z, T, cond.null()), (z, T + 0.05, cond)):
        changed = run(net, params, *inputs)
        assert np.isfinite(changed).all()
        assert np.abs(changed - y).max() > 1e-2


def test_the_text_reaches_the_output_through_attention_alone(
    z, make_cond, randomised, run
):
    net, cond = tiny(), make_cond(8, 8)
    params = randomised(net, z, T, cond)
    pooling = params["params"]["embedding"]["text"]
    pooling["dense_1"] = jax.tree.map(jnp.zeros_like, pooling["dense_1"])
    change = run(net, params, z, T, cond) - run(net, params, z, T, cond.null())
    assert np.abs(change).max() > 1e-2


def test_it_works_without_text(z, randomised, run):
    net, cond = tiny(), Conditioning(planes=z[..., :1])
    params = randomised(net, z, T, cond)
    paths = [
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    assert not [path for path in paths if "text" in path]
    assert params["params"]["stem"]["conv"]["kernel"].shape == (3, 3, 4, 8)
    assert np.isfinite(run(net, params, z, T, cond)).all()


def test_any_multiple_is_a_size_and_nothing_else(make_cond, normal, randomised, run):
    net, cond = tiny(space_to_depth=2), make_cond(8, 8)
    params = randomised(net, normal((2, 8, 8, 3), 0), T, cond)
    wide = normal((2, 4, 12, 3), 0)
    assert run(net, params, wide, T, cond).shape == wide.shape
    with pytest.raises(ValueError, match="UNet: height and width must be multiples"):
        net.apply(params, normal((2, 8, 9, 3), 0), T, cond)
    large = unet.UNet(
        channels=64, channel_mult=(1, 2, 4), space_to_depth=4, attention_levels=(2,)
    )
    assert large.size_multiple == 16


def test_wrong_fields_are_refused():
    with pytest.raises(ValueError, match="multiple of head_dim 7"):
        tiny(head_dim=7)
    with pytest.raises(ValueError, match="attention_levels must be below 2"):
        tiny(attention_levels=(2,))
    with pytest.raises(ValueError, match="positions must be one of"):
        tiny(positions="learned")
    with pytest.raises(ValueError, match="num_res_blocks must be one number or 2"):
        tiny(num_res_blocks=(1, 2, 3))
    with pytest.raises(ValueError, match="feed_forward must be one number or 2"):
        tiny(feed_forward=(1,))
    with pytest.raises(ValueError, match="text_map = 8 is read by the feed-forward"):
        tiny(text_map=8)
    with pytest.raises(ValueError, match="text_map must be a multiple of 4 heads"):
        tiny(text_map=6, feed_forward=2)


def test_rematerialisation_changes_nothing(make_cond, normal, randomised):
    cond, emb = make_cond(8, 8), normal((2, 6), 1)
    inputs = (normal((2, 4, 4, 8), 2), emb, cond.tokens, cond.mask)

    def level(remat):
        cls = blocks.rematerialised_level(unet.Level, remat)
        return cls(8, 1, True, head_dim=8, remat=remat)

    params = randomised(level("none"), *inputs)

    def value_and_grad(net):
        def loss(params):
            return jnp.mean(net.apply(params, *inputs)[0] ** 2)

        return jax.jit(jax.value_and_grad(loss))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        value_and_grad(level("none")),
        value_and_grad(level("full")),
    )


def test_each_remat_policy_keeps_less_for_the_backward_pass(normal, make_cond):
    z, cond = normal((2, 32, 32, 3), 7), make_cond()

    def kept(remat):
        net = tiny(num_res_blocks=2, remat=remat)

        def backward(params):
            return jax.vjp(lambda p: net.apply(p, z, T, cond), params)[1]

        params = jax.eval_shape(net.init, jax.random.key(0), z, T, cond)
        return sum(a.size for a in jax.tree.leaves(jax.eval_shape(backward, params)))

    none, block, full = (kept(remat) for remat in ("none", "block", "full"))
    assert full < 0.9 * block < 0.5 * none


def test_bfloat16_is_close_to_float32(z, make_cond, randomised, run):
    cond = make_cond(8, 8)
    params = randomised(tiny(), z, T, cond)
    full = run(tiny(), params, z, T, cond)
    half = run(tiny(dtype="bfloat16"), params, z, T, cond)
    assert half.dtype == np.float32
    # Eight bits of mantissa through some twenty layers.
    assert np.abs(half - full).std() < 0.03 * full.std()
    shapes = jax.eval_shape(tiny(dtype="bfloat16").init, jax.random.key(0), z, T, cond)
    assert {a.dtype for a in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_every_parameter_has_known_axes(z, make_cond, unknown_axes):
    assert not unknown_axes(tiny(feed_forward=2, text_map=8), z, T, make_cond(8, 8))
    net = tiny(text_features=4, feed_forward=2)
    cond = dataclasses.replace(make_cond(8, 8, planes=True), vector=jnp.ones((2, 3)))
    assert unknown_axes(net, z, T, cond) == []


def test_names_read_like_paths(z, make_cond):
    shapes = jax.eval_shape(tiny().init, jax.random.key(0), z, T, make_cond(8, 8))
    params = shapes["params"]
    assert set(params) == {
        *("text", "embedding", "stem", "head", "middle_0", "middle_1"),
        *("down_0", "down_1", "up_0", "up_1"),
    } - {"text"}
    assert set(params["down_0"]) == {"res_0", "downsample"}
    assert set(params["up_1"]) == {
        *("res_0", "res_1", "attention_0", "attention_1", "upsample")
    }


def test_feed_forwards_follow_attention_and_widen_by_level(z, make_cond):
    net = tiny(attention_levels=(0, 1), feed_forward=(3, 2))
    shapes = jax.eval_shape(net.init, jax.random.key(0), z, T, make_cond(8, 8))
    hidden = {
        level: blocks["feed_forward_0"]["gate"]["kernel"].unbox().shape
        for level, blocks in shapes["params"].items()
        if "feed_forward_0" in blocks
    }
    assert hidden == {
        **{"down_0": (8, 24), "up_0": (8, 24)},
        **dict.fromkeys(("down_1", "middle_0", "up_1"), (16, 32)),
    }


def test_the_text_map_reaches_the_output_and_ends_with_the_text(
    z, make_cond, randomised, text_map_moves
):
    net = tiny(feed_forward=2, text_map=8)
    cond = make_cond(8, 8)
    params = randomised(net, z, T, cond)
    assert text_map_moves(net, params, z, T, cond) > 1e-3
    assert text_map_moves(net, params, z, T, cond.null()) == 0


@pytest.mark.parametrize(
    ("fields", "millions", "tolerance"),
    [
        (unet.BASE_2B, 2200, 0.09),
        (unet.BASE_500M, 500, 0.15),
        (unet.BASE_300M, 300, 0.15),
    ],
)
def test_the_papers_sizes(fields, millions, tolerance):
    def spec(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    cond = Conditioning(tokens=spec(1, 128, 4096), mask=spec(1, 128, dtype=bool))
    inputs = (spec(1, 64, 64, 3), spec(1), cond)
    shapes = jax.eval_shape(unet.UNet(**fields).init, jax.random.key(0), *inputs)
    count = sum(math.prod(a.shape) for a in jax.tree.leaves(shapes)) / 1e6
    assert count == pytest.approx(millions, rel=tolerance)
