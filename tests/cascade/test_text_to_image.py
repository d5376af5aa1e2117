import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from imagen_jax.cascade import cascade
from tests import tiny_cascade


@pytest.fixture(scope="module")
def tiny():
    return tiny_cascade.model()


def test_a_picture_does_not_depend_on_what_is_drawn_beside_it(model):
    """One bit of the 8 may differ: other batch shapes sum in another order."""
    alone = model.sample(["a red cat"], seed=5)
    among = model.sample(["a dog", "a red cat"], num=3, seed=5)
    for a, b in zip(alone.stages, among.stages, strict=True):
        assert np.abs(a[0].astype(int) - b[3].astype(int)).max() <= 1


def test_seeds_and_numbers_give_different_pictures(tiny):
    few = tiny.sample(["a red cat"], num=2, seed=1).images
    other = tiny.sample(["a red cat"], seed=2).images
    assert (few[0] != few[1]).any() and (few[0] != other[0]).any()


def test_pictures_are_grouped_by_prompt(tiny):
    drawn = tiny.sample(["a", "b"], num=2)
    assert drawn.prompts == ("a", "a", "b", "b")
    assert [s.shape for s in drawn.stages] == [(4, 8, 8, 3), (4, 16, 16, 3)]


@pytest.mark.parametrize(
    ("prompts", "settings", "named"),
    [
        ([], {}, "prompts must not be empty"),
        (["  "], {}, "prompts must not be empty"),
        (["a"], {"num": 0}, "num"),
        (["a"], {"steps": (1, 2, 3)}, "steps must be one value or one for each"),
        (["a"], {"steps": 0}, "steps must be >= 1"),
        (["a"], {"threshold": "soft"}, "threshold"),
        (["a"], {"colour": 1}, "unknown setting 'colour'"),
        (["a prompt of far too many bytes"], {}, "Shorten"),
    ],
)
def test_bad_requests_are_named(tiny, prompts, settings, named):
    with pytest.raises(ValueError, match=named):
        tiny.sample(prompts, **settings)


def test_samples_show_themselves_in_a_notebook(tiny):
    png = tiny.sample(["a cat"])._repr_png_()
    assert Image.open(io.BytesIO(png)).size[0] >= 256


def test_words_that_training_never_held_are_told(tiny):
    assert tiny.unknown_words(["a Dog, riding"]) == ()  # not known: says nothing
    taught = dataclasses.replace(tiny, words=frozenset(["a", "dog"]))
    assert taught.unknown_words(["a Dog, riding a dog", "on moons"]) == (
        "riding",
        "on",
        "moons",
    )
    assert taught.unknown_words("a dog!") == ()


def test_guidance_can_lead_away_from_the_empty_prompt(tiny):
    base, up = tiny.cascade.stages
    led = dataclasses.replace(
        tiny,
        cascade=cascade.Cascade(
            stages=(dataclasses.replace(base, null_text="empty_prompt"), up)
        ),
    )
    zeros = tiny.sample(["a red cat"], guidance=4.0).stages[0].astype(int)
    empty = led.sample(["a red cat"], guidance=4.0).stages[0]
    assert (zeros != empty).any()
    # Without guidance there is nothing to lead away from.
    a, b = (m.sample(["a red cat"], guidance=1.0).stages[0] for m in (tiny, led))
    assert np.abs(a.astype(int) - b).max() <= 1


def test_a_grid_of_a_table_needs_a_table(tiny):
    with pytest.raises(ValueError, match="steps of a discrete schedule"):
        tiny.sample(["a red cat"], grid="smart27")
    assert [r.steps for r in tiny.recipes_with(grid="smart27")] == [27, 27]
