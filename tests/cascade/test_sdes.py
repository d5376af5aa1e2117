"""A stage on each of the three SDEs, from its loss to a picture's likelihood."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.cascade import recipe, request, stage
from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import likelihood, noise, prediction, schedules

SDES = {
    "ve": schedules.ExplodingSchedule(),
    "linear": schedules.LinearSchedule(),
    "sub_vp": schedules.SubVPSchedule(),
}
KEYS = jax.random.split(jax.random.key(0), 2)


class Tiny(nn.Module):
    """One convolution, told the noise level."""

    @nn.compact
    def __call__(self, z, noise_input, cond):
        told = nn.Dense(4)(noise_input[:, None])[:, None, None, :]
        return nn.Conv(3, (3, 3))(nn.tanh(nn.Conv(4, (3, 3))(z) + told))


def make(schedule, parameterization=prediction.EPS):
    return stage.Stage(
        name="tiny",
        network=Tiny(),
        schedule=schedule,
        parameterization=parameterization,
        resolution=4,
    )


@pytest.fixture(scope="module")
def params():
    return make(SDES["linear"]).init(jax.random.key(1))


@pytest.mark.parametrize("schedule", SDES.values(), ids=SDES)
def test_a_stage_trains_and_draws_on_each_sde(schedule, params):
    tiny = make(schedule)
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    loss, _ = jax.jit(tiny.loss)(KEYS[0], params, None, {"image": jnp.asarray(image)})
    # The error of predicting unit noise, whatever the size of z.
    assert np.all(np.isfinite(loss)) and np.all((loss > 0.1) & (loss < 10.0))
    settings = recipe.SamplingRecipe(
        solver=recipe.make_solver("predictor_corrector", predictor="ancestral"),
        steps=4,
        w=None,
        threshold="static",
    )
    x = jax.jit(tiny.sample)(KEYS, params, request.Request(), settings)
    assert x.shape == (2, 4, 4, 3) and np.all(np.isfinite(x))


def test_a_stage_weighs_pictures(params):
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    x = likelihood.dequantise(KEYS, jnp.asarray(image))
    denoiser, schedule = make(SDES["ve"]).denoiser(params), SDES["ve"]
    log_p = jax.jit(
        lambda x: likelihood.log_likelihood(
            KEYS, denoiser, x, Conditioning(), schedule, steps=3
        )
    )(x).log_p
    assert np.all(np.isfinite(likelihood.bits_per_dim(log_p, 48)))


@pytest.mark.parametrize("kind", ["ve", "sub_vp"])
def test_a_stages_denoiser_is_the_same_in_every_scale(kind, params):
    """The likelihood runs it on preserving levels."""
    level = SDES[kind](jnp.full(2, 0.5, jnp.float32))
    same = noise.variance_preserving(level.logsnr)
    z = jax.random.normal(jax.random.key(2), (2, 4, 4, 3))
    size = noise.expand(jnp.sqrt(level.alpha**2 + level.sigma**2), z)
    for parameterization in (prediction.EPS, prediction.X):
        denoise = make(SDES[kind], parameterization).denoiser(params)
        wide = denoise(size * z, level, Conditioning())
        narrow = denoise(z, same, Conditioning())
        np.testing.assert_allclose(wide.x, narrow.x, atol=1e-5)
        np.testing.assert_allclose(wide.eps, narrow.eps, atol=1e-5)


def test_low_resolution_pictures_are_not_exploded():
    with pytest.raises(ValueError, match=r"aug_schedule .* got ExplodingSchedule"):
        dataclasses.replace(make(SDES["ve"]), aug_schedule=SDES["ve"])
