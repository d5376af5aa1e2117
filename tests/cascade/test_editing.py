"""Editing on the tiny cascade of 8 and 16 pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imagen_jax.cascade import cascade, editing, images, recipe
from imagen_jax.cascade.request import Edit, Request
from imagen_jax.diffusion import prediction
from tests import compiling, tiny_cascade

SIDE = 16
RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[4:8, 8:12] = 255
SEED = {"seed": 3}


@pytest.fixture(scope="module")
def model():
    return tiny_cascade.model()


@pytest.fixture(scope="module")
def filled(model):
    return model.edit("a red cat", PICTURE, mask=MASK, **SEED)


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int))


def test_known_pixels_are_the_users_to_the_bit(filled):
    assert filled.images.shape == (1, SIDE, SIDE, 3)
    changed = difference(filled.images[0], PICTURE).any(-1)
    assert not changed[MASK == 0].any() and changed[MASK > 0].mean() > 0.9


def test_what_an_edit_began_goes_on_only_with_its_picture(model, filled):
    begun = dataclasses.replace(filled, stages=(), stage_names=())
    with pytest.raises(ValueError, match="begun from a picture of one's own"):
        model.resume(begun)
    given = editing.to_change(model.cascade, PICTURE, MASK)
    assert (model.resume(begun, given=given).images == filled.images).all()


def test_every_stage_keeps_what_is_known(filled):
    small = images.resize(images.to_float(jnp.asarray(PICTURE)[None]), (8, 8))
    known = difference(filled.stages[0][0], np.asarray(images.to_uint8(small))[0])
    assert filled.stages[0].shape == (1, 8, 8, 3)
    masked = MASK.reshape(8, 2, 8, 2).max((1, 3)) > 0
    assert known[~masked].max() <= 1 and known[masked].max() > 8


def test_new_masks_prompts_and_strengths_do_not_recompile(model, filled):
    del filled  # Compiled by it.
    seen = []
    with compiling.watched() as programs:
        for i in range(20):
            mask = np.zeros_like(MASK)
            mask[i % 12 : i % 12 + 4, : i % 10 + 5] = 255 - 10 * i
            settings = {"strength": 0.5 + 0.02 * i, "guidance": 1.5 + i, "seed": i}
            drawn = model.edit(f"a dog {i}", PICTURE[::-1], mask=mask, **settings)
            seen.append(drawn.images[0])
    assert not programs
    assert len({picture.tobytes() for picture in seen}) == 20


def test_what_is_new_is_compiled(model):
    """So that the test before counts what there is to be counted."""
    with compiling.watched() as programs:
        editing.to_change(model.cascade, PICTURE[:5, :7], size=(8, 8))
    assert programs


def whole(model, strength):
    given = editing.to_change(model.cascade, PICTURE)
    return model.sample(
        "a red cat", given=given, until="base", strength=strength, **SEED
    ).stages[0][0]


def test_at_strength_one_it_is_sampling(model):
    drawn = model.sample("a red cat", until="base", **SEED).stages[0][0]
    assert difference(whole(model, 1.0), drawn).max() <= 1
    assert difference(whole(model, 0.5), drawn).max() > 8


def test_at_little_strength_it_is_the_picture(model):
    """With a base that predicts noise: at little noise it leaves what it is shown."""
    base, up = model.cascade.stages
    base = dataclasses.replace(base, parameterization=prediction.EPS)
    gentle = tiny_cascade.model(cascade=cascade.Cascade(stages=(base, up)))
    small = images.resize(images.to_float(jnp.asarray(PICTURE)[None]), (8, 8))
    small = np.asarray(images.to_uint8(small))[0]
    near, far = (difference(whole(gentle, s), small).mean() for s in (1e-3, 0.9))
    assert near < 2 and far > 10 * near


def test_out_painting_keeps_the_picture_in_its_place(model, filled):
    picture = PICTURE[:12, :10]
    drawn = model.edit("a red cat", picture, outpaint=(4, 1, 2, 3), **SEED).images[0]
    np.testing.assert_array_equal(drawn[1:13, 4:14], picture)
    assert drawn[13:].std() > 1


def test_enlarging_begins_at_the_stage_that_takes_the_size(model):
    small = PICTURE[:8, :8]
    drawn = model.upscale("a red cat", small, **SEED)
    assert drawn.stage_names == ("up",) and drawn.images.shape == (1, 16, 16, 3)
    # As from the pictures of a run: resuming gives the same.
    begun = dataclasses.replace(
        drawn, stages=(small[None],), stage_names=("base",), edited=False
    )
    again = model.resume(begun)
    np.testing.assert_array_equal(again.images, drawn.images)


def test_variations_begin_from_the_small_picture_noised(model):
    drawn = model.variations("a blue dog", PICTURE, **SEED)
    assert drawn.stage_names == ("up",) and drawn.images.shape == (1, 16, 16, 3)
    assert [s["aug_level"] for s in drawn.settings] == [0.3, 0.3]


def test_requests_have_the_pictures_that_the_stages_want(model):
    enlarged = editing.to_enlarge(model.cascade, PICTURE[:7, :9])
    assert enlarged.low_res is not None and enlarged.size == (14, 18)
    assert enlarged.low_res.shape == (1, 7, 9, 3)
    wished = editing.to_enlarge(model.cascade, PICTURE, (8, 32))
    assert wished.low_res is not None and wished.low_res.shape == (1, 4, 16, 3)
    varied = editing.to_vary(model.cascade, PICTURE[:12, :12])
    assert varied.low_res is not None and varied.low_res.shape == (1, 6, 6, 3)
    soft = editing.to_change(model.cascade, PICTURE, MASK, size=(16, 16))
    assert soft.edit is not None and soft.edit.mask is not None
    assert soft.edit.mask.min() == 0.0 and soft.edit.mask.max() <= 1.0
    image = Image.fromarray(PICTURE)
    np.testing.assert_array_equal(editing.pixels_of(image), PICTURE)


def test_a_low_pixel_is_drawn_anew_if_any_of_its_pixels_is():
    mask = jnp.zeros((1, 8, 8, 1)).at[0, 3, 4].set(0.5)
    low = Edit(picture=jnp.zeros((1, 8, 8, 3)), mask=mask).at((2, 4))
    assert low.mask is not None and low.picture.shape == (1, 2, 4, 3)
    np.testing.assert_array_equal(np.argwhere(low.mask[0, ..., 0]), [[0, 2]])
    assert low.mask[0, 0, 2, 0] == 0.5
    with pytest.raises(ValueError, match="multiples of the stage's 3 x 4, got 8 x 8"):
        Edit(picture=jnp.zeros((1, 8, 8, 3))).at((3, 4))


def test_tiles_and_colours_are_the_recipes(model):
    """A network that tells the sizes that it sees, and a picture too dark."""
    seen = []

    class Dark:
        size_multiple = 2

        def apply(self, variables, z, noise_input, cond):
            seen.append(z.shape)
            return jnp.full_like(z, -1.0)

    up = dataclasses.replace(model.cascade.stages[1], network=Dark())
    own = recipe.SamplingRecipe(
        solver=model.recipes[1].solver, steps=1, w=None, tile=8, threshold="static"
    )
    low = jnp.zeros((1, 8, 8, 3))

    def drawn(own):
        keys = jax.random.split(jax.random.key(0), 1)
        return up.sample(keys, {}, Request(low_res=low), own)

    np.testing.assert_allclose(drawn(own), -1.0, atol=1e-6)
    assert set(seen) == {(1, 8, 8, 3)}
    fixed = drawn(dataclasses.replace(own, tile=0, colour_fix=2.0))
    np.testing.assert_allclose(fixed, 0.0, atol=1e-5)
    assert seen[-1] == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mask": np.zeros_like(MASK)}, "black everywhere"),
        ({"mask": MASK[:4]}, r"the picture's size, 16 x 16 .* got \[4, 16\]"),
        ({"mask": MASK * 2.0}, "a mask must be bool"),
        ({"outpaint": (1, 2, 3)}, "outpaint must be pixels"),
        ({"outpaint": (1, 2, 3, -1)}, "outpaint must be pixels"),
        ({"size": (15, 16)}, "the nearest is 16 x 16"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"resample": 5}, "got no mask"),
        ({"mask": MASK, "resample": 0}, "resample must be >= 1"),
        ({"tile": 8}, None),
        ({"tile": 7}, "tile must be a multiple of 2, got 7"),
    ],
)
def test_what_cannot_be_is_refused_before_drawing(model, options, named):
    def reader():
        raise AssertionError("read")

    unread = dataclasses.replace(model, params=(reader, reader))
    if named is None:
        with pytest.raises(AssertionError, match="read"):
            unread.edit("a red cat", PICTURE, **options)
        return
    with pytest.raises(ValueError, match=named):
        unread.edit("a red cat", PICTURE, **options)


def test_pictures_and_settings_of_other_kinds_are_refused(model):
    for wrong in (PICTURE / 255.0, PICTURE[..., :1], PICTURE[None], PICTURE[:0]):
        with pytest.raises(ValueError, match="edit: "):
            editing.pixels_of(wrong)
    with pytest.raises(ValueError, match=r"strength 0\.5 needs a picture"):
        model.sample("a red cat", strength=0.5)
    base = dataclasses.replace(model.cascade, stages=model.cascade.stages[:1])
    for ask in (editing.to_enlarge, editing.to_vary):
        with pytest.raises(ValueError, match="super-resolution is required"):
            ask(base, PICTURE)
