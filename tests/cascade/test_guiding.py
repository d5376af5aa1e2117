import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.cascade import recipe, request
from imagen_jax.diffusion import (
    guidance,
    guidance_weights,
    noise,
    prediction,
    schedules,
    solvers,
)
from imagen_jax.text.encoder import TextEmbedding

KEYS = jax.random.split(jax.random.key(2), 2)
SIZE = (4, 4)


class Network:
    """A network in one line that reads its text and says when it is traced."""

    def __init__(self):
        self.traced = 0

    def apply(self, variables, z, noise_input, cond):
        self.traced += 1
        said = jnp.sum(jnp.where(cond.mask[..., None], cond.tokens, 0.0), (1, 2))
        return variables["params"] * jnp.tanh(z * noise.expand(1.0 + said, z))


@pytest.fixture
def stage(stages):
    return dataclasses.replace(stages[0], network=Network(), text_dim=3, text_length=2)


@pytest.fixture
def asked():
    values = 0.3 * jax.random.normal(jax.random.key(3), (2, 2, 3))
    return request.Request(text=TextEmbedding(values, jnp.ones((2, 2), bool)))


def make(**changes):
    return recipe.SamplingRecipe(
        **{"solver": solvers.DDIM(), "steps": 6, "w": 3.0, **changes}
    )


def test_without_new_settings_the_program_is_plain_guidance(stage, asked):
    z, _, cond = stage.example_inputs(4, 2)
    level = stage.schedule(jnp.full(2, 0.5))

    def program(guided):
        return str(jax.make_jaxpr(lambda z: guided(z, level, cond))(z))

    plain = stage.denoiser(1.0)
    led = guidance.classifier_free(plain, 3.0)
    for w, expected in ((3.0, led), (None, plain)):
        own = make(w=w)
        bounded = guidance.thresholded(expected, own.clip())
        assert program(stage.guided(1.0, own)) == program(bounded)


def test_an_interval_over_everything_draws_as_none(stage, asked):
    # Of eps, rounding at the noisiest levels would grow by 1 / alpha.
    stage = dataclasses.replace(stage, parameterization=prediction.X)
    free = stage.sample(KEYS, 1.0, asked, make(), SIZE)
    bounded = make(guidance_low=0.0, guidance_high=1e9)
    same = stage.sample(KEYS, 1.0, asked, bounded, SIZE)
    np.testing.assert_allclose(same, free, atol=1e-5)
    narrow = make(guidance_low=0.5, guidance_high=2.0)
    assert np.abs(stage.sample(KEYS, 1.0, asked, narrow, SIZE) - free).max() > 1e-2
    nowhere = make(guidance_low=1e8)
    off = stage.sample(KEYS, 1.0, asked, make(w=None), SIZE)
    alike = stage.sample(KEYS, 1.0, asked, nowhere, SIZE)
    np.testing.assert_allclose(alike, off, atol=1e-5)


def test_cost_falls_with_the_share_of_steps_inside_the_interval(stage):
    levels = schedules.CosineSchedule()(1.0 - jnp.arange(40.0) / 40)
    sigma = np.asarray(levels.sigma / levels.alpha)
    inside = int(((sigma > 0.28) & (sigma <= 2.9)).sum())
    assert 10 < inside < 30
    bounds = {"guidance_low": 0.28, "guidance_high": 2.9}
    assert stage.evaluations(make(steps=40)) == (80, 0)
    assert stage.evaluations(make(steps=40, w=None)) == (40, 0)
    assert stage.evaluations(make(steps=40, **bounds)) == (40 + inside, 0)
    both = make(steps=40, autoguidance=2.0, **bounds)
    assert stage.evaluations(both) == (40 + inside, inside)


def test_new_numbers_run_the_same_program(stage, asked):
    paired = dataclasses.replace(stage, weak=stage)
    draw = jax.jit(lambda r, a: paired.sample(KEYS, (1.0, 0.5), a, r, SIZE))

    def settings(scale):
        return make(
            w=2.0 * scale,
            autoguidance=1.5 * scale,
            guidance_schedule=guidance_weights.Oscillating(low=scale, first=int(scale)),
            guidance_low=0.1 * scale,
            guidance_high=5.0 * scale,
            guidance_rescale=0.3 * scale,
            apg_eta=0.2 * scale,
            apg_norm=2.0 * scale,
        )

    negative = TextEmbedding(-asked.text.values, asked.text.mask)
    asked = dataclasses.replace(asked, negative=negative)
    first = draw(settings(1.0), asked)
    traced = stage.network.traced
    second = draw(settings(2.0), asked)
    assert stage.network.traced == traced and np.abs(first - second).max() > 1e-3


def test_a_negative_prompt_takes_the_place_of_the_null(stage, asked):
    null = TextEmbedding(jnp.zeros_like(asked.text.values), asked.text.mask)
    same = dataclasses.replace(asked, negative=null)
    other = dataclasses.replace(
        asked, negative=TextEmbedding(-asked.text.values, asked.text.mask)
    )
    free, equal, led = (
        stage.sample(KEYS, 1.0, a, make(), SIZE) for a in (asked, same, other)
    )
    np.testing.assert_array_equal(equal, free)
    assert np.abs(led - free).max() > 1e-2
    # Of the empty prompt as well.
    empty = dataclasses.replace(stage, null_text="empty_prompt", text_drop=0.0)
    np.testing.assert_array_equal(empty.sample(KEYS, 1.0, other, make(), SIZE), led)


def test_autoguidance_needs_a_weaker_model_that_is_told_the_same(stage, asked):
    with pytest.raises(ValueError, match="leads away from a weaker model, got none"):
        stage.sample(KEYS, 1.0, asked, make(autoguidance=2.0), SIZE)
    paired = dataclasses.replace(stage, weak=stage)
    auto = make(w=None, autoguidance=2.0)
    plain = stage.sample(KEYS, 1.0, asked, make(w=None), SIZE)
    same = paired.sample(KEYS, (1.0, 1.0), asked, auto, SIZE)
    np.testing.assert_allclose(same, plain, atol=1e-4)
    led = paired.sample(KEYS, (1.0, 0.5), asked, auto, SIZE)
    assert np.abs(led - plain).max() > 1e-2
    with pytest.raises(ValueError, match="must have the same text_dim, 3, got 4"):
        dataclasses.replace(stage, weak=dataclasses.replace(stage, text_dim=4))
