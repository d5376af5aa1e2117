import dataclasses

import jax
import numpy as np
import pytest

from imagen_jax.cascade import cascade, request
from imagen_jax.cascade.cascade import slice_length


def keys(count):
    return jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(
        np.arange(count)
    )


def draw(model, count=2, low_res=None, **options):
    text = model.encoder(model.text_params(), ["a red cat"] * count)
    params = [reader() for reader in model.params]
    asked = request.Request(text=text, low_res=low_res)
    return model.cascade.sample(keys(count), params, asked, model.recipes, **options)


def test_every_stage_gives_its_resolution(model):
    assert [x.shape[1] for x in draw(model)] == [8, 16]


def test_progress_counts_every_step_of_every_stage(model):
    seen = []
    draw(model, progress=lambda s, done, total, x: seen.append((s.name, done, total)))
    assert seen[-1] == ("up", 2, 2) and ("base", 4, 4) in seen


def test_drawing_goes_on_from_a_stage_picture(model):
    """From the base's own pictures the second stage draws what it drew before."""
    whole = draw(model)
    again = draw(model, low_res=whole[0])
    assert len(again) == 1
    np.testing.assert_allclose(again[0], whole[1], atol=1e-5)


def test_a_picture_of_no_stage_size_is_refused(model):
    with pytest.raises(ValueError, match="low_res must be one of"):
        draw(model, low_res=np.zeros((2, 5, 5, 3), np.float32))


def test_stages_that_do_not_fit_are_refused(stages):
    with pytest.raises(ValueError, match="must start from 16 px"):
        wide = dataclasses.replace(stages[0], resolution=16)
        cascade.Cascade(stages=(wide, stages[1]))


@pytest.mark.parametrize("steps", [1, 2, 10, 50, 53, 64, 256])
def test_slices_are_equal_and_cover_all_steps(steps):
    length = slice_length(steps)
    assert steps % length == 0 and 1 <= length <= max(1, steps // 10)


def test_a_new_weight_seed_or_prompt_does_not_recompile(model):
    params = [reader() for reader in model.params]

    def once(prompt, seed, w):
        text = model.encoder(model.text_params(), [prompt])
        key = jax.random.key(seed)[None]
        recipes = [dataclasses.replace(r, w=w, aug_level=0.1) for r in model.recipes]
        model.cascade.sample(key, params, request.Request(text=text), recipes)

    once("a cat", 0, 2.0)
    before = cascade._advance._cache_size()
    once("a blue dog", 7, 3.5)
    assert cascade._advance._cache_size() == before
