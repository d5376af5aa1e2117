"""Laws of known pixels, on a Gaussian whose pixels depend on each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import (
    inpainting,
    multistep,
    noise,
    prediction,
    process,
    sampler,
    schedules,
    solvers,
)

B, N = 256, 8
MEAN = 0.2
COSINE = schedules.CosineSchedule()
PLACES = np.arange(N)
# Neighbours depend on each other, and less the further apart they stand.
COVARIANCE = 0.25 * np.exp(-np.abs(PLACES[:, None] - PLACES[None]) / 4.0)
KNOWN = np.array([1, 1, 0, 0, 0, 0, 1, 1], bool)
PICTURE = np.array([0.9, 0.8, 0.0, 0.0, 0.0, 0.0, -0.6, -0.7], np.float32)
KEYS = jax.random.split(jax.random.key(0), B)


def correlated(z, level, cond):
    """E[x | z], exactly."""
    alpha, sigma = level.alpha[0], level.sigma[0]
    c = jnp.asarray(COVARIANCE, jnp.float32)
    noisy = jnp.square(alpha) * c + jnp.square(sigma) * jnp.eye(N)
    gain = alpha * jnp.linalg.solve(noisy, c)
    return prediction.from_x(MEAN + (z - alpha * MEAN) @ gain, z, level)


def rows(values):
    return jnp.broadcast_to(jnp.asarray(values, jnp.float32), (B, N))


@jax.jit
def draw(solver, mask):
    draws = sampler.Sampler(schedule=COSINE, solver=solver, steps=20)
    filled = inpainting.replaced(correlated, rows(PICTURE), mask)
    return draws(KEYS, filled, draws.prior(KEYS, (N,)), Conditioning())


MASK = rows(~KNOWN)
ANCESTRAL = solvers.Ancestral(gamma=0.5)


@pytest.fixture(scope="module")
def drawn():
    found = {
        "ancestral": ANCESTRAL,
        "ddim": solvers.DDIM(),
        "resampled": inpainting.Resampled(solver=ANCESTRAL, times=10),
    }
    return {name: np.asarray(draw(solver, MASK)) for name, solver in found.items()}


def test_known_pixels_are_the_pictures_to_the_bit(drawn):
    for x in drawn.values():
        np.testing.assert_array_equal(x[:, KNOWN], rows(PICTURE)[:, KNOWN])
        assert x[:, ~KNOWN].std(0).min() > 0.1


def test_resampling_comes_nearer_to_what_the_known_pixels_tell(drawn):
    """The mean of the pixels drawn against the Gaussian's conditional mean."""
    inner = COVARIANCE[np.ix_(KNOWN, KNOWN)]
    across = COVARIANCE[np.ix_(~KNOWN, KNOWN)]
    told = MEAN + across @ np.linalg.solve(inner, (PICTURE - MEAN)[KNOWN])

    def error(x):
        return np.abs(x[:, ~KNOWN].mean(0) - told).max()

    replaced, resampled = error(drawn["ancestral"]), error(drawn["resampled"])
    assert resampled < 0.5 * replaced
    # Replacement itself is nearer than drawing without looking at the picture.
    assert replaced < np.abs(MEAN - told).max()


def test_mixed_pixels_are_mixed_and_a_full_mask_leaves_nothing(drawn):
    plain = np.asarray(draw(ANCESTRAL, rows(np.ones(N))))
    half = rows(np.where(PLACES < 4, 0.5, 1.0))
    x = np.asarray(draw(ANCESTRAL, half))
    # Half of each is the picture's, so it varies half as much.
    spread = x.std(0) / plain.std(0)
    assert (spread[:4] < 0.65).all() and (spread[5:] > 0.75).all()
    assert np.abs(plain.mean(0) - MEAN).max() < 0.15


def test_how_often_may_change_without_recompiling():
    few = draw(inpainting.Resampled(solver=ANCESTRAL, times=2), MASK)
    before = draw._cache_size()
    more = draw(inpainting.Resampled(solver=ANCESTRAL, times=3), MASK)
    assert draw._cache_size() == before
    assert (few != more).any()


def test_a_step_made_once_is_the_solvers():
    once = inpainting.Resampled(solver=solvers.DDIM(), times=1)
    np.testing.assert_allclose(draw(once, MASK), draw(solvers.DDIM(), MASK), atol=1e-5)


def test_a_solver_with_a_memory_begins_each_turn_anew():
    """Of order 1 then, whatever it is elsewhere: DPM-Solver++'s is DDIM."""
    forgetful = inpainting.Resampled(solver=multistep.DPMpp2M(), times=3)
    plain = inpainting.Resampled(solver=solvers.DDIM(), times=3)
    np.testing.assert_allclose(draw(forgetful, MASK), draw(plain, MASK), atol=1e-4)
    assert forgetful.calls == 3


@pytest.mark.parametrize("name", ["preserving", "exploding"])
def test_going_back_gives_the_noisier_level(name, exploding):
    schedule = COSINE if name == "preserving" else exploding
    level_s, level_t = (schedule(jnp.full(4, t)) for t in (0.3, 0.6))
    x = jnp.full((4, 64, 64), 0.7)
    keys = jax.random.split(jax.random.key(1), 8)
    z_s, _ = process.diffuse(keys[:4], x, level_s)
    z_t = process.diffuse_further(keys[4:], z_s, level_s, level_t)
    left = z_t - noise.expand(level_t.alpha, x) * x
    np.testing.assert_allclose(left.std((1, 2)), level_t.sigma, rtol=0.05)
    error = 4.0 / 64.0 * level_t.sigma[0]
    np.testing.assert_allclose(left.mean((1, 2)), 0.0, atol=error)
    # What it had of noise stays: the correlation is that of q(z_t | z_s).
    eps = (z_s - noise.expand(level_s.alpha, x) * x) / level_s.sigma[0]
    kept = level_t.alpha[0] / level_s.alpha[0] * level_s.sigma[0]
    np.testing.assert_allclose((left * eps).mean((1, 2)), kept, rtol=0.1, atol=error)
