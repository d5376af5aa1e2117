"""What is done to a low-resolution picture before a network sees it."""

import jax.numpy as jnp

from imagen_jax.diffusion import noise, process
from imagen_jax.types import Array, Float, Key, typechecked


@typechecked
def augment(
    key: Key[Array, "*keys"], low_res: Float[Array, "B *data"], level: noise.NoiseLevel
) -> Float[Array, "B *data"]:
    """alpha low_res + sigma n, with n ~ N(0, I) (Saharia et al. 2022, section 2.4).

    In training the level is that of aug_level ~ U(0, 1), independent of t; in sampling
    aug_level is fixed and the picture is noised once, before the first step. The
    network is told aug_level. One key, or one per example [B]. Float32.
    """
    # Paper silent: which schedule turns aug_level into noise. The caller's level
    # decides; Stage takes the cosine schedule.
    noisy, _ = process.diffuse(key, low_res, level)
    return noisy


@typechecked
def blur(
    low_res: Float[Array, "B H W C"], sigma: Float[Array, " B"]
) -> Float[Array, "B H W C"]:
    """Blur each picture by a Gaussian of standard deviation `sigma` pixels.

    A super-resolution stage that has trained on such pictures too draws what a stage
    before it has left vague (Saharia et al. 2021, SR3; Ramesh et al. 2022,
    section 2.2). Nothing comes from beyond the border: weights there are renormalised.
    A sigma of 0 changes nothing. Float32.
    """
    scale = 1.0 / jnp.maximum(sigma, 1e-3)  # at 1e-3 the neighbours' weights vanish

    def weights(size: int) -> Array:
        places = scale[:, None] * jnp.arange(size, dtype=jnp.float32)[None]
        w = jnp.exp(-0.5 * jnp.square(places[:, :, None] - places[:, None, :]))
        return w / w.sum(-1, keepdims=True)

    _, height, width, _ = low_res.shape
    low_res = jnp.einsum("bij,bjwc->biwc", weights(height), low_res)
    return jnp.einsum("bij,bhjc->bhic", weights(width), low_res)
