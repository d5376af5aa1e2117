import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import special

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import likelihood, noise, schedules
from tests.diffusion import mixture

COND = Conditioning()
SDES = {
    "ve": schedules.ExplodingSchedule(),
    "vp": schedules.LinearSchedule(),
    "sub_vp": schedules.SubVPSchedule(),
    "cosine": schedules.CosineSchedule(),
}
KEYS = jax.random.split(jax.random.key(0), 16)
# A joint mixture: the flow's derivative has entries beside its diagonal.
JOINT = mixture.Mixture(joint=True)
MODES = np.random.default_rng(0).choice(2, 16, p=mixture.WEIGHTS)
X = np.array(mixture.MEANS)[MODES][:, None] + np.array(mixture.STDS)[MODES][
    :, None
] * np.random.default_rng(1).normal(size=(16, 3))
X = jnp.asarray(X, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """`log_likelihood` compiled for one setting."""

    schedule: schedules.NoiseSchedule
    steps: int = 100
    probe: str = "exact"

    def __call__(self, denoiser, x=X, keys=KEYS):
        return jax.jit(
            lambda keys, x: likelihood.log_likelihood(
                keys,
                denoiser,
                x,
                COND,
                self.schedule,
                steps=self.steps,
                probe=self.probe,
            )
        )(keys, x)


def truth(schedule, x=X):
    level = schedule(jnp.zeros(x.shape[0]))
    return special.logsumexp(JOINT.log_densities(x, level), axis=0)[:, 0]


@pytest.mark.parametrize("schedule", SDES.values(), ids=SDES)
def test_a_mixtures_likelihood_is_its_density(schedule):
    found = Estimate(schedule)(JOINT).log_p
    np.testing.assert_allclose(found, truth(schedule), atol=0.01)


@pytest.mark.parametrize("schedule", [SDES["ve"], SDES["cosine"]], ids=["ve", "cosine"])
def test_a_gaussians_likelihood_and_flow_are_known(schedule, gaussian):
    # Around 0, as the exploding prior is, whose width is only 50.
    centred = dataclasses.replace(gaussian, mean=0.0)
    x = 0.2 * jax.random.normal(jax.random.key(4), (16, 3))
    found = Estimate(schedule, steps=50)(centred, x)
    level = schedule(jnp.zeros(16))
    variance = float(0.2**2 * level.alpha[0] ** 2 + level.sigma[0] ** 2)
    unit = x / math.sqrt(variance)
    expected = -0.5 * jnp.sum(unit**2 + math.log(2 * math.pi * variance), axis=1)
    np.testing.assert_allclose(found.log_p, expected, atol=0.01)
    np.testing.assert_allclose(found.y, unit, atol=2e-3)


def test_twice_the_steps_are_a_tenth_of_the_error():
    # Some of the pictures lie between the modes, where the flow is steep.
    errors = [
        np.abs(Estimate(SDES["cosine"], steps=n)(JOINT).log_p - truth(SDES["cosine"]))
        for n in (50, 100)
    ]
    assert errors[0].max() > 10.0 * errors[1].max()


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_probes_are_right_on_average(probe):
    exact = truth(SDES["cosine"], X[:1])
    keys = jax.random.split(jax.random.key(3), 2000)
    many = jnp.broadcast_to(X[:1], (2000, 3))
    estimate = Estimate(SDES["cosine"], steps=50, probe=probe)
    found = np.asarray(estimate(JOINT, many, keys).log_p, np.float64)
    error = found.std() / math.sqrt(2000)
    assert 0.0 < error < 0.1
    assert abs(found.mean() - float(exact[0])) < 4.0 * error + 0.01


def test_an_example_has_its_own_probe_and_no_neighbours():
    @jax.jit
    def one(keys, x):
        found = likelihood.log_likelihood(keys, JOINT, x, COND, SDES["vp"], steps=1)
        return found.log_p

    together = one(KEYS, X)
    np.testing.assert_allclose(one(KEYS[3:4], X[3:4])[0], together[3], rtol=1e-5)
    again = one(KEYS, X[jnp.array([0] * 16)])
    assert len(np.unique(again)) > 1


def test_a_uniform_density_costs_eight_bits():
    log_p = jnp.full(3, -12.0 * math.log(2.0), jnp.float32)
    np.testing.assert_allclose(likelihood.bits_per_dim(log_p, 12), 8.0, rtol=1e-6)


def test_dequantised_values_fill_the_cell_of_each_value():
    image = jnp.tile(jnp.arange(256, dtype=jnp.uint8), (2, 4, 1))[..., None]
    x = likelihood.dequantise(KEYS[:2], image)
    place = (np.asarray(x, np.float64) + 1.0) * 128.0 - np.asarray(image, np.float64)
    # Rounded, a place just below the next value may reach it.
    assert place.min() >= 0.0 and place.max() <= 1.0
    np.testing.assert_allclose(place.mean(), 0.5, atol=0.03)
    assert np.any(x[0] != x[1])


def test_bad_settings_are_refused(gaussian):
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        Estimate(SDES["vp"], steps=0)(gaussian)
    with pytest.raises(ValueError, match=r"probe must be one of .* 'sobol'"):
        Estimate(SDES["vp"], probe="sobol")(gaussian)


def test_a_denoiser_is_the_same_in_every_scale(gaussian):
    """What lets the flow run on preserving levels, whatever the schedule."""
    level = SDES["ve"](jnp.full(16, 0.4, jnp.float32))
    same = noise.variance_preserving(level.logsnr)
    z = level.sigma[:, None] * X
    scaled = noise.expand(same.alpha, z) * z
    for denoiser in (gaussian, JOINT):
        wide, narrow = denoiser(z, level, COND), denoiser(scaled, same, COND)
        np.testing.assert_allclose(wide.x, narrow.x, atol=1e-5)
