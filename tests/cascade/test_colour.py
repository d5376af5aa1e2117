import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.cascade import colour, images
from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import prediction, schedules

LOW = images.resize(
    jax.random.uniform(jax.random.key(0), (2, 2, 3, 3), minval=-0.5, maxval=0.5),
    (8, 12),
)
SIZE = (32, 48)
DETAIL = 0.1 * jax.random.normal(jax.random.key(1), (2, *SIZE, 3))
# Darker at the right, bluer everywhere.
DRIFT = 0.2 * jnp.linspace(0, 1, SIZE[1])[None, None, :, None] + jnp.array(
    [0.0, 0.0, 0.3]
).reshape(1, 1, 1, 3)


def drifting(z, level, cond):
    x = images.resize(LOW, SIZE) + DETAIL - DRIFT
    return prediction.from_x(x, z, level)


@jax.jit
def found(width):
    z = jax.random.normal(jax.random.key(2), DETAIL.shape)
    level = schedules.CosineSchedule()(jnp.full(2, 0.5))
    return colour.matched(drifting, LOW, width)(z, level, Conditioning()), z, level


def shift(x):
    return np.asarray(images.resize(x, LOW.shape[1:3]) - LOW)


def test_a_wide_match_brings_back_the_mean_and_leaves_the_rest():
    x = found(1e4)[0].x
    np.testing.assert_allclose(shift(x).mean((1, 2)), 0.0, atol=0.01)
    moved = np.asarray(x - drifting(jnp.zeros_like(x), found(1.0)[2], None).x)
    # One number a picture and channel.
    assert moved.std((1, 2)).max() < 0.01 and np.abs(moved).max() > 0.2


def test_a_narrow_match_brings_back_the_colours_of_regions():
    wide, narrow = (np.abs(shift(found(width)[0].x)).mean() for width in (1e4, 1.0))
    assert narrow < 0.7 * wide
    x = found(1.0)[0].x
    # Details finer than the low-resolution picture's pixels are the network's.
    fine = np.asarray(x - images.resize(images.resize(x, LOW.shape[1:3]), SIZE))
    own = DETAIL - images.resize(images.resize(DETAIL, LOW.shape[1:3]), SIZE)
    assert np.corrcoef(fine.ravel(), np.asarray(own).ravel())[0, 1] > 0.95


def test_eps_belongs_to_the_corrected_picture():
    (x, eps, _), z, level = found(2.0)
    again = level.alpha[0] * x + level.sigma[0] * eps
    np.testing.assert_allclose(again, z, atol=1e-5)
