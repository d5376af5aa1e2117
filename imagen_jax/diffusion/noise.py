"""How noisy a picture is, apart from any notion of time.

A noisy picture is z = alpha x + sigma eps with eps ~ N(0, I). Its log-SNR is
logsnr = log(alpha^2 / sigma^2), natural logarithm, falling as noise grows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.types import Array, Float, Key, typechecked


class NoiseLevel(NamedTuple):
    """One noise level per example; all three in float32, shape [B].

    Attributes:
      logsnr: log(alpha^2 / sigma^2).
      alpha: scale of the data.
      sigma: standard deviation of the noise.
    """

    logsnr: Float[Array, "*B"]
    alpha: Float[Array, "*B"]
    sigma: Float[Array, "*B"]


@typechecked
def variance_preserving(logsnr: Float[Array, "*B"]) -> NoiseLevel:
    """The level with alpha^2 + sigma^2 = 1.

    alpha^2 = sigmoid(logsnr), sigma^2 = sigmoid(-logsnr) (Saharia et al. 2022,
    appendix A). Taking both from the log-SNR keeps full float32 precision at either
    end, where 1 - alpha^2 would cancel.
    """
    logsnr = logsnr.astype(jnp.float32)
    alpha = jnp.exp(0.5 * jax.nn.log_sigmoid(logsnr))
    sigma = jnp.exp(0.5 * jax.nn.log_sigmoid(-logsnr))
    return NoiseLevel(logsnr, alpha, sigma)


@typechecked
def variance_exploding(sigma: Float[Array, "*B"]) -> NoiseLevel:
    """The level with alpha = 1 (Song et al. 2021, section 3.4); sigma > 0."""
    sigma = sigma.astype(jnp.float32)
    return NoiseLevel(-2.0 * jnp.log(sigma), jnp.ones_like(sigma), sigma)


def is_variance_preserving(level: NoiseLevel) -> bool:
    """Whether alpha^2 + sigma^2 = 1; the level must be concrete, not traced."""
    total = np.square(np.asarray(level.alpha)) + np.square(np.asarray(level.sigma))
    return bool(np.all(np.abs(total - 1.0) < 1e-3))


@typechecked
def expand(values: Float[Array, " B"], like: Float[Array, "B ..."]) -> Array:
    """[B] -> [B, 1, ...] with the rank of `like`."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


@typechecked
def broadcast(level: NoiseLevel, like: Float[Array, "B ..."]) -> NoiseLevel:
    """A level whose fields [B, 1, ...] multiply data of the rank of `like`."""
    return NoiseLevel(*(expand(field, like) for field in level))


@typechecked
def cosine_time(level: NoiseLevel) -> Float[Array, "*B"]:
    """The time in [0, 1] at which an unclipped cosine schedule has this log-SNR.

    t = (2 / pi) arctan(exp(-logsnr / 2)), the inverse of logsnr = -2 log tan(pi t / 2)
    (Nichol & Dhariwal 2021, in the continuous form of Salimans & Ho 2022). It is what
    networks read as their noise input: bounded, and the same number for the same
    noise whatever the schedule.
    """
    # Paper silent: the network "gets t or the log-SNR"; this is t for the cosine
    # schedule and keeps other schedules comparable.
    return jnp.arctan(jnp.exp(-0.5 * level.logsnr)) * (2.0 / np.pi)


@typechecked
def normal(key: Key[Array, "*B"], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Unit normal noise of `shape` = [B, ...] in float32.

    With one key the noise is drawn at once. With one key per example, [B], each
    example's noise depends on its own key only, hence not on the size of the batch.

    Raises:
      ValueError: if there is more than one key but not one per example.
    """
    if key.ndim == 0:
        return jax.random.normal(key, shape, jnp.float32)
    if key.shape != shape[:1]:
        raise ValueError(
            f"normal: one key, or one per example, is required, got keys "
            f"{key.shape} for data {shape}. Split the key into {shape[0]}."
        )
    return jax.vmap(lambda k: jax.random.normal(k, shape[1:], jnp.float32))(key)
