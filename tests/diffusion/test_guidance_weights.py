import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import (
    guidance,
    guidance_weights,
    noise,
    prediction,
    sampler,
    schedules,
    solvers,
)

COSINE = schedules.CosineSchedule()
KEYS = jax.random.split(jax.random.key(1), 2)
COND = Conditioning(tokens=jnp.ones((2, 1, 1)), mask=jnp.ones((2, 1), bool))


def run_with(schedule, w, steps=8, first=0, count=8):
    """The weights that a sampler's own steps get, in order."""
    s = sampler.Sampler(schedule=COSINE, solver=solvers.DDIM(), steps=steps)
    weight = schedule(w, s.levels()[0])
    told = []

    def denoiser(z, level, cond):
        number = jnp.broadcast_to(weight(level) if callable(weight) else weight, (2,))
        jax.debug.callback(lambda w: told.append(float(w)), number[0], ordered=True)
        return prediction.from_x(0.5 * z, z, level)

    z = s.prior(KEYS, (2, 2, 3))
    jax.block_until_ready(
        s.advance(KEYS, denoiser, s.init(z), COND, first=first, count=count)
    )
    jax.effects_barrier()
    return told


def test_a_constant_weight_is_the_weight_itself():
    w = jnp.float32(3.0)
    assert guidance_weights.CONSTANT(w, COSINE(jnp.ones(4))) is w


def test_oscillation_begins_high_and_then_alternates_on_the_samplers_steps():
    oscillating = guidance_weights.Oscillating(low=2.0, first=3)
    expected = [16.0, 16.0, 16.0, 2.0, 16.0, 2.0, 16.0, 2.0]
    assert run_with(oscillating, 16.0) == expected
    # A slice of the run knows where it is.
    assert run_with(oscillating, 16.0, first=4, count=3) == expected[4:7]


def test_a_linear_weight_goes_from_its_begin_to_w_along_the_run():
    told = run_with(guidance_weights.Linear(begin=1.0), 9.0)
    # The cosine schedule's own t: 1, 7/8, ..., 1/8.
    np.testing.assert_allclose(told, 1.0 + np.arange(8), atol=2e-3)
    falling = run_with(guidance_weights.Linear(begin=9.0), 1.0)
    np.testing.assert_allclose(falling, 9.0 - np.arange(8), atol=2e-3)


def test_a_level_belongs_to_its_step_rounded_or_renewed():
    levels = COSINE(jnp.linspace(1.0, 0.1, 10))
    steps = np.arange(10)
    np.testing.assert_array_equal(guidance_weights.step_of(levels, levels), steps)
    gaps = jnp.diff(levels.logsnr, prepend=levels.logsnr[:1] - 1.0)
    for shift in (1e-6, -1e-6, -0.8 * gaps):
        moved = levels._replace(logsnr=levels.logsnr + shift)
        np.testing.assert_array_equal(guidance_weights.step_of(moved, levels), steps)
    one = jax.tree.map(lambda a: a[:1], levels)
    assert guidance_weights.step_of(one, one).tolist() == [0]


def test_new_numbers_of_a_schedule_do_not_recompile(gaussian):
    traces = []

    @jax.jit
    def run(schedule, w, z, level):
        traces.append(1)
        weight = schedule(w, level)
        return guidance.classifier_free(gaussian, weight)(z, level, COND).x

    z, level = jnp.ones((2, 2, 2, 3)), COSINE(jnp.array([0.6, 0.4]))
    for low, first, w in ((1.0, 0, 3.0), (2.0, 1, 4.0)):
        run(guidance_weights.Oscillating(low=low, first=first), w, z, level)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("constant", guidance_weights.CONSTANT),
        ("linear", guidance_weights.Linear()),
        ("linear:0.5", guidance_weights.Linear(begin=0.5)),
        ("oscillating:2:5", guidance_weights.Oscillating(low=2.0, first=5)),
    ],
)
def test_schedules_have_names_with_numbers(text, schedule):
    assert guidance_weights.by_name(text) == schedule
    assert isinstance(schedule, guidance_weights.WeightSchedule)
    assert text.startswith(schedule.name)


@pytest.mark.parametrize(
    "text", ["cosine", "constant:1", "linear:1:2", "oscillating:1:2.5", "linear:x"]
)
def test_other_names_and_numbers_are_refused(text):
    with pytest.raises(ValueError, match=f"'oscillating:LOW:FIRST', got '{text}'"):
        guidance_weights.by_name(text)


def test_exploding_levels_have_their_times_too(exploding):
    weight = guidance_weights.Linear(begin=1.0)(
        5.0, noise.NoiseLevel(*[jnp.ones(1)] * 3)
    )
    told = weight(exploding(jnp.array([1.0, 0.0])))
    np.testing.assert_allclose(told, [1.0, 5.0], atol=0.06)
