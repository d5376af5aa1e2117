import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import noise, sampler, schedules, sde, solvers
from tests.diffusion import mixture

COND = Conditioning()
SDES = {
    "ve": schedules.ExplodingSchedule(),
    "vp": schedules.LinearSchedule(),
    "sub_vp": schedules.SubVPSchedule(),
}
PREDICTORS = {
    "euler_maruyama": sde.EulerMaruyama(),
    "reverse_diffusion": sde.ReverseDiffusion(),
    "probability_flow": sde.ProbabilityFlow(),
}
# 32 x 256 independent pixels: 0.005 between them and the mixture is chance.
KEYS = jax.random.split(jax.random.key(0), 32)
SHAPE = (16, 16, 1)
run = jax.jit(
    lambda s, keys: s(keys, mixture.Mixture(), s.prior(keys, SHAPE), COND),
)


def draw(schedule, solver, steps):
    return run(sampler.Sampler(schedule=schedule, solver=solver, steps=steps), KEYS)


def levels(schedule, t, s, batch):
    grid = schedule(jnp.array([t, s], jnp.float32))
    return tuple(
        jax.tree.map(lambda a, i=i: jnp.broadcast_to(a[i], (batch,)), grid)
        for i in (0, 1)
    )


def known(z, level):
    return mixture.Mixture()(z, level, COND)


@pytest.mark.parametrize("schedule", SDES.values(), ids=SDES)
@pytest.mark.parametrize("solver", PREDICTORS.values(), ids=PREDICTORS)
def test_predictors_recover_a_mixture(schedule, solver):
    x = draw(schedule, solver, 300)
    # Without noise, with twice as much, or without drift it is above 0.1.
    assert mixture.distance(x) < 0.025


@pytest.mark.parametrize("schedule", SDES.values(), ids=SDES)
def test_steps_follow_the_sde_of_the_schedule(schedule):
    """f and g^2 by differentiating alpha and sigma in t."""
    t, dt = jnp.full(4, 0.6, jnp.float32), 1e-3
    level, rate = jax.jvp(schedule, (t,), (jnp.ones_like(t),))
    f = rate.alpha / level.alpha
    g2 = 2.0 * level.sigma * rate.sigma - 2.0 * f * level.sigma**2
    z = level.sigma[:, None] * jax.random.normal(jax.random.key(1), (4, 8))
    score = sde.score(known(z, level).eps, level)
    level_t, level_s = levels(schedule, 0.6, 0.6 - dt, 4)
    keys, state = KEYS[:4], solvers.State(z, jnp.zeros_like(z))
    fresh = noise.normal(keys, z.shape)
    f, g2 = f[:, None], g2[:, None]
    for solver, share in zip(PREDICTORS.values(), (1.0, 1.0, 0.5), strict=True):
        moved = solver.update(keys, state, known, level_t, level_s).z - z
        if share == 1.0:
            spread = jnp.std(moved) / jnp.std(jnp.sqrt(g2 * dt) * fresh)
            np.testing.assert_allclose(spread, 1.0, rtol=0.05)
            moved -= jnp.sqrt(g2 * dt) * fresh
        expected = -(f * z - share * g2 * score) * dt
        # The step is finite, and its noise 30 times larger than its drift.
        bound = 0.02 * np.abs(expected).max() + (share == 1.0) * 0.01 * np.sqrt(
            float(g2[0, 0]) * dt
        )
        np.testing.assert_allclose(moved, expected, atol=bound)


def test_exploding_ancestral_steps_are_songs():
    """Song et al. 2021, appendix F; and reverse diffusion is the largest variance."""
    level_t, level_s = levels(SDES["ve"], 0.5, 0.48, 4)
    z = jax.random.normal(jax.random.key(1), (4, 8))
    state, keys = solvers.State(z, jnp.zeros_like(z)), KEYS[:4]
    fresh = noise.normal(keys, z.shape)
    more, less = level_t.sigma[0] ** 2, level_s.sigma[0] ** 2
    gradient = sde.score(known(z, level_t).eps, level_t)
    mean = z + (more - less) * gradient
    ancestral = solvers.Ancestral(gamma=0.0).update(
        keys, state, known, level_t, level_s
    )
    expected = mean + jnp.sqrt(less * (more - less) / more) * fresh
    np.testing.assert_allclose(ancestral.z, expected, atol=1e-5)
    widest = solvers.Ancestral(gamma=1.0).update(keys, state, known, level_t, level_s)
    reverse = sde.ReverseDiffusion().update(keys, state, known, level_t, level_s)
    np.testing.assert_allclose(reverse.z, widest.z, atol=1e-5)
    np.testing.assert_allclose(
        reverse.z, mean + jnp.sqrt(more - less) * fresh, atol=1e-5
    )


@pytest.mark.parametrize("solver", PREDICTORS.values(), ids=PREDICTORS)
@pytest.mark.parametrize("times", [(1.0, 0.0), (1.0, 0.999), (1e-3, 0.0), (0.0, 0.0)])
def test_steps_at_the_ends_are_finite(solver, times):
    z = jax.random.normal(jax.random.key(0), (2, 8))
    for schedule in (*SDES.values(), schedules.CosineSchedule()):
        level_t, level_s = levels(schedule, *times, 2)
        state = solver.update(KEYS[:2], solver.init(z), known, level_t, level_s)
        assert np.all(np.isfinite(state.z)) and np.all(np.isfinite(state.x))
