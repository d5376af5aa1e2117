import dataclasses
import io

import jax
import numpy as np
import pytest
from PIL import Image

from imagen_jax.cascade import cascade, picture_files
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
            stages=(
                dataclasses.replace(base, null_text="empty_prompt", text_drop=0.0),
                up,
            )
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


def test_a_negative_prompt_leads_elsewhere_and_is_kept_in_files(tiny, tmp_path):
    led = tiny.sample(["a red cat"], negative="a dog", until="base")
    free = tiny.sample(["a red cat"], until="base")
    assert (led.images != free.images).any()
    picture_files.save(led, tmp_path)
    begun = picture_files.read([tmp_path], tiny.stage_names)
    assert begun.negatives == ("a dog",)
    again = dataclasses.replace(begun, stages=(), stage_names=())
    redrawn = tiny.resume(again, until="base").images
    np.testing.assert_array_equal(redrawn, led.images)


def test_a_negative_prompt_without_guidance_is_refused(tiny):
    with pytest.raises(ValueError, match="set guidance above 1"):
        tiny.sample(["a"], negative="b", guidance="off")
    with pytest.raises(ValueError, match="one text, or one for each of the 1 prompts"):
        tiny.sample(["a"], negative=["b", "c"])
    with pytest.raises(ValueError, match="an empty one among others"):
        tiny.sample(["a", "b"], negative=["c", ""])


def test_interpolation_goes_from_one_prompt_to_another(tiny):
    way = tiny.interpolate("a red cat", "a dog", 3, steps=2, until="base")
    ends = tiny.sample(["a red cat", "a dog", "a dog"], steps=2, until="base").images
    found, ends = way.images.astype(int), ends.astype(int)
    assert np.abs(found[[0, 2]] - ends[:2]).max() <= 1
    assert min(np.abs(found[1] - end).max() for end in ends) > 1
    assert way.prompts[1] == "a red cat ~> a dog @ 0.5"


def test_a_model_guided_by_itself_is_itself(tiny):
    paired = tiny.guided_by(tiny)
    # Beside the base's own weight, so that what it equals is compiled already.
    led = paired.sample(["a red cat"], autoguidance=3.0, until="base").images
    free = tiny.sample(["a red cat"], until="base").images
    assert np.abs(led.astype(int) - free).max() <= 1
    with pytest.raises(ValueError, match="stage base has no weaker model"):
        tiny.sample(["a"], autoguidance=2.0)


def test_another_text_encoder_or_other_sizes_cannot_guide(tiny):
    other = dataclasses.replace(
        tiny, text_params=lambda: jax.tree.map(lambda a: a + 1, tiny.text_params())
    )
    with pytest.raises(ValueError, match="the same text encoder"):
        tiny.guided_by(other)
    only = dataclasses.replace(
        tiny,
        cascade=cascade.Cascade(stages=tiny.cascade.stages[1:]),
        params=tiny.params[1:],
        recipes=tiny.recipes[1:],
    )
    base = dataclasses.replace(
        tiny,
        cascade=cascade.Cascade(stages=tiny.cascade.stages[:1]),
        params=tiny.params[:1],
        recipes=tiny.recipes[:1],
    )
    with pytest.raises(ValueError, match=r"of \[16\] px is required, got \[8\] px"):
        only.guided_by(base)
