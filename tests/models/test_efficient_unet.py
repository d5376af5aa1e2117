import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.models import efficient_unet

T = jnp.array([0.3, 0.8])


def tiny(**changes):
    fields = {
        "channels": (8, 16),
        "num_res_blocks": (1, 1),
        "strides": (2, 2),
        "attention": ("none", "self"),
        "heads": 2,
        "positions": "coordinates",
    }
    return efficient_unet.EfficientUNet(**{**fields, **changes})


@pytest.fixture
def z(normal):
    return normal((2, 8, 8, 3), 7)


def test_a_new_network_gives_zero(z, make_cond, initialised, run):
    net, cond = tiny(), make_cond(8, 8, planes=True)
    params = initialised(net, z, T, cond)
    y = run(net, params, z, T, cond)
    assert y.shape == z.shape and y.dtype == np.float32
    assert np.all(y == 0)


def test_feed_forwards_follow_attention(z, make_cond):
    net = tiny(attention=("text", "self"), feed_forward=(3, 2))
    cond = make_cond(8, 8, planes=True)
    params = jax.eval_shape(net.init, jax.random.key(0), z, T, cond)["params"]
    hidden = {
        level: params[level]["feed_forward"]["gate"]["kernel"].unbox().shape
        for level in ("down_0", "up_0", "down_1", "up_1")
    }
    assert hidden == {
        **dict.fromkeys(("down_0", "up_0"), (8, 24)),
        **dict.fromkeys(("down_1", "up_1"), (16, 32)),
    }
    with pytest.raises(ValueError, match="feed_forward must have one entry for each"):
        tiny(feed_forward=(1,))


@pytest.mark.parametrize("kind", ["self", "text"])
def test_every_condition_reaches_the_output(kind, z, make_cond, randomised, run):
    net = tiny(attention=("none", kind))
    cond = make_cond(8, 8, planes=True)
    params = randomised(net, z, T, cond)
    y = run(net, params, z, T, cond)
    assert np.isfinite(y).all() and y.std() > 0.1
    garbage = jnp.where(cond.mask[:, :, None], cond.tokens, 1e3)
    for same, changes in (
        (True, {"tokens": garbage}),
        (False, {"tokens": cond.tokens[:, :, ::-1]}),
        (False, {"planes": cond.planes[:, ::-1]}),
        (False, {"aug_level": cond.aug_level + 0.05}),
    ):
        changed = run(net, params, z, T, dataclasses.replace(cond, **changes))
        assert (np.abs(changed - y).max() < 1e-4) == same, changes.keys()
    assert np.isfinite(run(net, params, z, T, cond.null())).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"merge": "add", "combine": "block", "skip_scaling": False},
        {"strides": (1, 2), "space_to_depth": 4, "residual_scaling": False},
        {"text_features": 4, "embedding_features": 24, "stem_channels": 4},
    ],
)
def test_every_variant_runs(changes, make_cond, normal, randomised, run):
    net, cond = tiny(**changes), make_cond(8, 16, planes=True)
    z = normal((2, 8, 16, 3), 0)
    params = randomised(net, z, T, cond)
    y = run(net, params, z, T, cond)
    assert y.shape == z.shape and np.isfinite(y).all()


def test_it_works_without_text(z, make_cond, randomised, run):
    net = tiny(attention=("text", "self"))
    cond = make_cond(8, 8, planes=True, text=False)
    params = randomised(net, z, T, cond)
    paths = [
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    assert not [path for path in paths if "text" in path]
    assert "attention" not in params["params"]["down_0"]
    assert np.isfinite(run(net, params, z, T, cond)).all()


def test_without_self_attention_it_is_fully_convolutional(
    make_cond, normal, randomised, run
):
    net = tiny(attention=("none", "text"), positions="none")
    cond = make_cond(8, 8, planes=True)
    params = randomised(net, normal((2, 8, 8, 3), 0), T, cond)

    def response(top, left):
        # A patch on an empty ground. What the patch reaches (36 pixels around it) and
        # what the borders reach stay apart, or the norms' statistics would change.
        def place(patch):
            rest = (152 - top, 152 - left)
            spread = ((0, 0), (top, rest[0]), (left, rest[1]), (0, 0))
            return np.pad(patch, spread)

        here = dataclasses.replace(cond, planes=place(cond.planes))
        return run(net, params, place(normal((2, 8, 8, 3), 1)), T, here)

    y, moved = response(76, 80), response(80, 76)
    scale = np.abs(y).max()
    middle = y[:, 40:116, 44:120]
    assert middle.std() > 0.1
    np.testing.assert_allclose(moved[:, 44:120, 40:116], middle, atol=1e-4 * scale)
    # The control: a shift that is no multiple of the strides.
    odd = response(77, 80)[:, 41:117, 44:120]
    assert np.abs(odd - middle).max() > 1e-2 * scale


def test_any_multiple_is_a_size_and_nothing_else(make_cond, normal, randomised, run):
    net = tiny()
    params = randomised(net, normal((2, 8, 8, 3), 0), T, make_cond(8, 8, planes=True))
    wide = normal((2, 4, 20, 3), 0)
    cond = make_cond(4, 20, planes=True)
    assert run(net, params, wide, T, cond).shape == wide.shape
    with pytest.raises(ValueError, match="must be multiples of 4, got 8 x 10"):
        net.apply(params, normal((2, 8, 10, 3), 0), T, cond)


def test_a_new_network_with_an_input_skip_gives_its_low_resolution_input(
    z, make_cond, initialised, randomised, run
):
    net, cond = tiny(input_skip=True), make_cond(8, 8, planes=True)
    params = initialised(net, z, T, cond)
    np.testing.assert_array_equal(run(net, params, z, T, cond), cond.planes)

    # How much of it, the noise level and that of the input decide.
    params = randomised(net, z, T, cond)
    kernel = params["params"]["input_skip"]["scale"]["kernel"]
    changed = jax.tree.map(lambda a: a, params)
    changed["params"]["input_skip"]["scale"]["kernel"] = kernel + 0.1
    difference = run(net, changed, z, T, cond) - run(net, params, z, T, cond)
    share = difference / np.asarray(cond.planes)
    np.testing.assert_allclose(share, share[:, :1, :1] + 0 * share, atol=1e-3)
    assert np.ptp(share[:, 0, 0, 0]) > 1e-3

    with pytest.raises(ValueError, match="InputSkip: planes must be a picture"):
        jax.eval_shape(net.init, jax.random.key(0), z, T, make_cond(8, 8))


@pytest.mark.parametrize("first", [0, 1])
def test_the_text_map_reaches_every_feed_forward(
    first, z, make_cond, randomised, text_map_moves
):
    net = tiny(
        attention=("text", "self") if first == 0 else ("none", "self"),
        feed_forward=2,
        text_map=8,
    )
    cond = make_cond(8, 8, planes=True)
    params = randomised(net, z, T, cond)
    for level, width in ((first, 8 * (first + 1)), (1, 16)):
        for way in ("down", "up"):
            gate = params["params"][f"{way}_{level}"]["feed_forward"]["gate"]
            assert gate["kernel"].shape[0] == width + 8
    assert text_map_moves(net, params, z, T, cond) > 1e-3
    assert text_map_moves(net, params, z, T, cond.null()) == 0


def test_wrong_fields_are_refused():
    with pytest.raises(ValueError, match="strides must have one entry for each"):
        tiny(strides=(2, 2, 2))
    with pytest.raises(ValueError, match="merge must be one of"):
        tiny(merge="multiply")
    with pytest.raises(ValueError, match="combine must be one of"):
        tiny(combine="never")
    with pytest.raises(ValueError, match="attention must be of"):
        tiny(attention=("none", "cross"))
    with pytest.raises(ValueError, match="must be a multiple of 3 heads"):
        tiny(heads=3)
    with pytest.raises(ValueError, match="stem_channels must equal"):
        tiny(strides=(1, 2), stem_channels=4)
    with pytest.raises(ValueError, match="text_map = 8 is read by the feed-forward"):
        tiny(text_map=8, feed_forward=(2, 0))
    with pytest.raises(ValueError, match="text_map must be a multiple of 4 heads"):
        tiny(text_map=6, feed_forward=2)


def test_rematerialisation_and_bfloat16_change_little(z, make_cond, randomised, run):
    cond = make_cond(8, 8, planes=True)
    params = randomised(tiny(), z, T, cond)
    y = run(tiny(), params, z, T, cond)
    again = run(tiny(remat="full"), params, z, T, cond)
    np.testing.assert_allclose(again, y, atol=1e-5)
    half = run(tiny(dtype="bfloat16"), params, z, T, cond)
    assert half.dtype == np.float32
    # Eight bits of mantissa through some twenty layers.
    assert np.abs(half - y).std() < 0.03 * y.std()


@pytest.mark.parametrize("kind", ["self", "text"])
@pytest.mark.parametrize("combine", ["resblock", "block"])
def test_every_parameter_has_known_axes(kind, combine, z, make_cond, unknown_axes):
    net = tiny(
        attention=("none", kind),
        combine=combine,
        feed_forward=2,
        text_map=8,
        input_skip=True,
    )
    assert unknown_axes(net, z, T, make_cond(8, 8, planes=True)) == []


@pytest.mark.parametrize(
    ("fields", "millions"),
    [(efficient_unet.SR_256, 600), (efficient_unet.SR_1024, 400)],
)
def test_the_papers_sizes(fields, millions):
    def spec(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    net = efficient_unet.EfficientUNet(**fields)
    cond = Conditioning(
        tokens=spec(1, 128, 4096),
        mask=spec(1, 128, dtype=bool),
        planes=spec(1, 256, 256, 3),
        aug_level=spec(1),
    )
    inputs = (spec(1, 256, 256, 3), spec(1), cond)
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    count = sum(math.prod(a.shape) for a in jax.tree.leaves(shapes)) / 1e6
    assert count == pytest.approx(millions, rel=0.05)
