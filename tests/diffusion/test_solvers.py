import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import (
    grids,
    guidance,
    noise,
    prediction,
    process,
    sampler,
    schedules,
    solvers,
    thresholding,
)
from tests import deepfloyd
from tests.golden import named_weights

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


def test_a_learned_gamma_comes_before_the_solvers_own(gaussian):
    grid = schedules.CosineSchedule()(jnp.array([0.6, 0.5]))
    level_t, level_s = (
        jax.tree.map(lambda a, i=i: jnp.broadcast_to(a[i], (64,)), grid) for i in (0, 1)
    )
    z = jnp.full((64, 8, 8, 1), 0.4)

    def denoise(z, level):
        return gaussian(z, level, COND)._replace(gamma=jnp.full(z.shape, 0.7))

    told = solvers.Ancestral(gamma=0.0).update(
        KEYS, solvers.Ancestral().init(z), denoise, level_t, level_s
    )
    own = solvers.Ancestral(gamma=0.7).update(
        KEYS,
        solvers.Ancestral().init(z),
        lambda z, level: gaussian(z, level, COND),
        level_t,
        level_s,
    )
    np.testing.assert_allclose(told.z, own.z, atol=1e-6)


@pytest.mark.parametrize(("stage", "cap"), [("1", 1.5), ("2", 1.0)])
def test_deepfloyds_steps_are_those_of_diffusers(stage, cap):
    # make_deepfloyd.py has the same outputs, made of z and of named numbers.
    golden = deepfloyd.GOLDEN[f"trajectory/{stage}/z"]
    steps, shape = len(golden), golden.shape[1:]
    preset = deepfloyd.ABOUT["trajectories"][stage]
    schedule = schedules.DiscreteSchedule()
    draw = sampler.Sampler(
        schedule=schedule,
        solver=solvers.Ancestral(gamma=0.0),
        steps=steps,
        grid=grids.by_name("leading" if isinstance(preset, int) else preset),
    )
    numbers = {
        kind: np.stack(
            [named_weights.normal(f"{kind}{i}", shape) for i in range(steps)]
        )
        for kind in ("eps", "variance")
    }
    times = draw.grid(schedule, steps)[:-1]

    def denoiser(z, level, cond):
        row = jnp.argmin(jnp.abs(times - schedule.time(level)[0]))
        kept = noise.expand(jnp.square(level.alpha), z)
        spread = noise.expand(level.sigma, z) / (0.36 * kept + 1.0 - kept)
        eps = spread * z + 0.3 * jnp.asarray(numbers["eps"])[row]
        gamma = 0.5 * (jnp.tanh(jnp.asarray(numbers["variance"])[row]) + 1.0)
        return prediction.from_eps(eps, z, level)._replace(gamma=gamma)

    def clip(x):
        return thresholding.dynamic(x, 0.95, cap)

    seed = jax.random.key(deepfloyd.ABOUT["seed"])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(seed, jnp.arange(shape[0]))
    denoiser = guidance.thresholded(denoiser, clip)
    step = jax.jit(
        lambda state, i: draw.advance(keys, denoiser, state, COND, first=i, count=1)
    )
    state = draw.init(jnp.asarray(named_weights.normal("prior", shape)))
    for i in range(steps):
        state = step(state, i)
        # The last step returns x; what it would leave as z is no one's.
        if i < steps - 1:
            np.testing.assert_allclose(state.z, golden[i], atol=1e-5)
    np.testing.assert_allclose(state.x, golden[-1], atol=1e-5)
    np.testing.assert_allclose(
        state.x, deepfloyd.GOLDEN[f"trajectory/{stage}/x"], atol=1e-5
    )
