import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import guidance, process, sampler, schedules, solvers
from imagen_jax.diffusion import thresholding as thresholds

KEYS = jax.random.split(jax.random.key(7), 3)
SHAPE = (4, 4, 3)
COND = Conditioning(tokens=jnp.ones((3, 2, 4)), mask=jnp.ones((3, 2), bool))
COSINE = schedules.CosineSchedule()


def make(steps=12, solver=None, schedule=COSINE):
    solver = solver or solvers.Ancestral(gamma=0.3)
    return sampler.Sampler(schedule=schedule, solver=solver, steps=steps)


@pytest.fixture
def denoiser(gaussian):
    """As in use: guided and thresholded around a known denoiser."""
    guided = guidance.classifier_free(gaussian, 1.5)
    return guidance.thresholded(guided, thresholds.dynamic)


def test_levels_run_uniformly_from_start_to_zero():
    level_t, level_s = make(steps=4).levels(0.8)
    for level, t in ((level_t, [0.8, 0.6, 0.4, 0.2]), (level_s, [0.6, 0.4, 0.2, 0.0])):
        expected = COSINE(jnp.array(t)).logsnr
        np.testing.assert_allclose(level.logsnr, expected, rtol=1e-5, atol=1e-5)


def test_the_prior_is_unit_normal_and_one_key_is_one_picture():
    s = make()
    z = s.prior(KEYS, SHAPE)
    np.testing.assert_array_equal(z[1:2], s.prior(KEYS[1:2], SHAPE))
    np.testing.assert_array_equal(z[0], jax.random.normal(KEYS[0], SHAPE))


def test_the_prior_of_an_exploding_schedule_is_as_wide_as_its_noise(exploding):
    z = make(schedule=exploding).prior(KEYS, (64, 64, 3))
    np.testing.assert_allclose(z.std(), 50.0, rtol=0.02)


def test_slices_equal_one_run_bit_for_bit(denoiser):
    s = make()
    z = s.prior(KEYS, SHAPE)
    whole = jax.jit(lambda s, z: s(KEYS, denoiser, z, COND))(s, z)
    for count in (1, 4):
        advance = jax.jit(
            lambda s, state, first, count=count: s.advance(
                KEYS, denoiser, state, COND, first=first, count=count
            )
        )
        state = s.init(z)
        for first in range(0, s.steps, count):
            state = advance(s, state, first)
        np.testing.assert_array_equal(state.x, whole)


def test_one_picture_is_the_same_alone_and_in_a_batch(denoiser):
    s = make()
    z = s.prior(KEYS, SHAPE)
    together = jax.jit(lambda: s(KEYS, denoiser, z, COND))()
    one = jax.tree.map(lambda a: a[1:2], COND)
    alone = jax.jit(lambda: s(KEYS[1:2], denoiser, z[1:2], one))()
    # The same numbers, vectorised differently: roundings only.
    np.testing.assert_allclose(together[1:2], alone, atol=1e-6)


def test_frames_end_with_the_picture_and_pass_through_the_slices(denoiser):
    s = make()
    z = s.prior(KEYS, SHAPE)
    x, frames = jax.jit(lambda: s.with_frames(KEYS, denoiser, z, COND, every=3))()
    assert frames.shape == (4, 3, *SHAPE)
    np.testing.assert_array_equal(frames[-1], x)
    advance = jax.jit(
        lambda state: s.advance(KEYS, denoiser, state, COND, first=0, count=6)
    )
    np.testing.assert_allclose(frames[1], advance(s.init(z)).x, atol=1e-6)


def test_steps_are_calls_and_a_new_gamma_does_not_recompile(gaussian):
    traced = []

    def counted(z, level, cond):
        traced.append(z.shape)
        return gaussian(z, level, cond)

    run = jax.jit(lambda s, z: s(KEYS, counted, z, COND))
    z = make().prior(KEYS, SHAPE)
    a, b = (run(make(solver=solvers.Ancestral(gamma=g)), z) for g in (0.1, 0.9))
    # One call in the body of one loop of `steps` turns; one trace for both gammas.
    assert traced == [(3, *SHAPE)]
    assert np.any(a != b)
    text = jax.make_jaxpr(lambda z: make(steps=5)(KEYS, gaussian, z, COND))(z)
    assert str(text).count("length=5") == 1


def test_ddim_uses_no_noise(denoiser):
    s = make(solver=solvers.DDIM())
    z = s.prior(KEYS, SHAPE)
    other = jax.random.split(jax.random.key(8), 3)
    np.testing.assert_array_equal(
        s(KEYS, denoiser, z, COND), s(other, denoiser, z, COND)
    )


def test_a_late_start_keeps_the_picture(gaussian):
    s = make(solver=solvers.DDIM())
    x = 0.30 + 0.20 * jax.random.normal(jax.random.key(1), (3, *SHAPE))
    run = jax.jit(lambda s, z, start: s(KEYS, gaussian, z, COND, start))

    def distance(start):
        z, _ = process.diffuse(KEYS, x, s.schedule(jnp.full(3, start)))
        return np.abs(run(s, z, start) - x).max()

    # At t = 0.005 the noise is 0.008, one 25th of the data's spread.
    assert distance(0.005) < 0.05 < distance(0.9)


def test_flat_data_are_sampled_too(gaussian):
    s = make()
    x = s(KEYS, gaussian, s.prior(KEYS, (6,)), COND)
    assert x.shape == (3, 6)


def test_bad_numbers_are_refused(gaussian):
    s = make()
    z = s.prior(KEYS, SHAPE)
    with pytest.raises(ValueError, match="steps must be"):
        make(steps=0)
    with pytest.raises(ValueError, match="every"):
        s.with_frames(KEYS, gaussian, z, COND, every=5)
    with pytest.raises(ValueError, match="slice"):
        s.advance(KEYS, gaussian, s.init(z), COND, first=8, count=5)
