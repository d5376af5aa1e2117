"""The forward process q(z_t given x) and its posterior q(z_s given z_t, x)."""

import jax.numpy as jnp

from imagen_jax.diffusion import noise
from imagen_jax.types import Array, Float, Key, typechecked


@typechecked
def diffuse(
    key: Key[Array, "*keys"], x: Float[Array, "B *data"], level: noise.NoiseLevel
) -> tuple[Float[Array, "B *data"], Float[Array, "B *data"]]:
    """Draws (z, eps) with z = alpha x + sigma eps, eps ~ N(0, I).

    Saharia et al. 2022, eq. 3 (q(z_t | x) = N(alpha_t x, sigma_t^2 I)). One key, or one
    per example [B]. Float32.
    """
    x = x.astype(jnp.float32)
    eps = noise.normal(key, x.shape)
    _, alpha, sigma = noise.broadcast(level, x)
    return alpha * x + sigma * eps, eps


@typechecked
def diffuse_further(
    key: Key[Array, "*keys"],
    z_s: Float[Array, "B *data"],
    level_s: noise.NoiseLevel,
    level_t: noise.NoiseLevel,
) -> Float[Array, "B *data"]:
    """Draws z_t ~ q(z_t | z_s), t noisier than s (Saharia et al. 2022, eq. 3).

    z_t = (alpha_t / alpha_s) z_s + sigma_t sqrt(1 - r) n with n ~ N(0, I) and
    r = exp(logsnr_t - logsnr_s). One key, or one per example [B].
    """
    added = level_t.sigma * jnp.sqrt(-jnp.expm1(level_t.logsnr - level_s.logsnr))
    keep = level_t.alpha / level_s.alpha
    fresh = noise.normal(key, z_s.shape)
    return noise.expand(keep, z_s) * z_s + noise.expand(added, z_s) * fresh


@typechecked
def posterior(
    z_t: Float[Array, "B *data"],
    x: Float[Array, "B *data"],
    level_t: noise.NoiseLevel,
    level_s: noise.NoiseLevel,
) -> tuple[Float[Array, "B *data"], Float[Array, " B"], Float[Array, " B"]]:
    """Mean and the two variances of z_s, less noisy than z_t.

    With r = exp(logsnr_t - logsnr_s), Saharia et al. 2022, appendix A, eqs. 5 and 6:

      mean    = r (alpha_s / alpha_t) z_t + (1 - r) alpha_s x
      var_min = (1 - r) sigma_s^2    the variance of q(z_s | z_t, x)
      var_max = (1 - r) sigma_t^2    that of q(z_t | z_s), eq. 3

    They hold for variance-exploding levels too. Variances have shape [B].
    """
    one_minus_r = -jnp.expm1(level_t.logsnr - level_s.logsnr)
    # r alpha_s / alpha_t, as a product of ratios of order one: alpha_t may be 5e-5.
    keep = (level_t.alpha / level_s.alpha) * jnp.square(level_s.sigma / level_t.sigma)
    take = one_minus_r * level_s.alpha
    mean = noise.expand(keep, z_t) * z_t + noise.expand(take, x) * x
    var_min = one_minus_r * jnp.square(level_s.sigma)
    var_max = one_minus_r * jnp.square(level_t.sigma)
    return mean, var_min, var_max
