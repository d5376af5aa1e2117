import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import process, sampler, schedules, solvers

COND = Conditioning()
# 64 x 256 independent pixels: the mean's standard error is 0.0016, the std's 0.0011.
KEYS = jax.random.split(jax.random.key(0), 64)
SHAPE = (16, 16, 1)
run = jax.jit(lambda s, denoiser, z: s(KEYS, denoiser, z, COND), static_argnums=1)


def sample(schedule, solver, denoiser, steps=256):
    s = sampler.Sampler(schedule=schedule, solver=solver, steps=steps)
    z = s.prior(KEYS, SHAPE)
    return z, run(s, denoiser, z)


@pytest.fixture(params=["cosine", "linear", "exploding"])
def schedule(request, exploding):
    return {
        "cosine": schedules.CosineSchedule(),
        "linear": schedules.LinearSchedule(),
        "exploding": exploding,
    }[request.param]


@pytest.mark.parametrize("gamma", [None, 0.3, 1.0])
def test_solvers_recover_a_gaussian(schedule, gamma, gaussian):
    solver = solvers.DDIM() if gamma is None else solvers.Ancestral(gamma=gamma)
    _, x = sample(schedule, solver, gaussian)
    np.testing.assert_allclose(x.mean(), 0.30, atol=1e-2)
    np.testing.assert_allclose(x.std(), 0.20, atol=1e-2)


def test_ddim_follows_the_probability_flow(gaussian):
    # For Gaussian data the flow maps z_1 linearly, quantile to quantile.
    z, x = sample(schedules.CosineSchedule(), solvers.DDIM(), gaussian)
    # 256 first-order steps shorten |z|, up to 4, by 1 %.
    np.testing.assert_allclose(x, 0.30 + 0.20 * z, atol=2e-2)


def test_the_two_variances_enclose_the_truth(gaussian):
    # With few steps the lower variance loses spread and the upper one gains some.
    stds = [
        sample(
            schedules.CosineSchedule(), solvers.Ancestral(gamma=g), gaussian, steps=64
        )[1].std()
        for g in (0.0, 1.0)
    ]
    assert stds[0] < 0.20 < stds[1]


def test_an_ancestral_step_has_the_moments_of_its_formula(gaussian):
    grid = schedules.CosineSchedule()(jnp.array([0.6, 0.5]))
    level_t = jax.tree.map(lambda a: jnp.broadcast_to(a[0], (64,)), grid)
    level_s = jax.tree.map(lambda a: jnp.broadcast_to(a[1], (64,)), grid)
    z = jnp.full((64, 16, 16, 1), 0.4)
    solver = solvers.Ancestral(gamma=0.3)

    def denoise(z, level):
        return gaussian(z, level, COND)

    state = solver.update(KEYS, solver.init(z), denoise, level_t, level_s)
    mean, low, high = process.posterior(z, state.x, level_t, level_s)
    std = low[0] ** 0.35 * high[0] ** 0.15
    np.testing.assert_allclose(state.z.mean(), mean[0, 0, 0, 0], atol=0.01)
    np.testing.assert_allclose(state.z.std(), std, rtol=0.02)


@pytest.mark.parametrize("solver", [solvers.DDIM(), solvers.Ancestral()])
@pytest.mark.parametrize("times", [(1.0, 0.0), (1.0, 0.999), (1e-3, 0.0), (0.0, 0.0)])
def test_steps_at_the_ends_are_finite(solver, times, gaussian):
    grid = schedules.CosineSchedule()(jnp.array(times))
    level_t = jax.tree.map(lambda a: a[:1], grid)
    level_s = jax.tree.map(lambda a: a[1:], grid)
    z = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))

    def denoise(z, level):
        return gaussian(z, level, COND)

    state = solver.update(KEYS[:1], solver.init(z), denoise, level_t, level_s)
    assert np.all(np.isfinite(state.z)) and np.all(np.isfinite(state.x))
    if times[1] == 0.0 and times[0] > 0.5:
        # Noise of 4.5e-5 is left, to the power 1 - gamma for the ancestral sampler.
        np.testing.assert_allclose(state.z, state.x, atol=5e-3)


def test_a_bad_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma"):
        solvers.Ancestral(gamma=1.5)
