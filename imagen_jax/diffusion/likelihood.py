"""log p(x) along a denoiser's probability-flow ODE (Song et al. 2021, section 4.3).

At any noise level, let y = z / sqrt(alpha^2 + sigma^2), of N(0, I) when all is noise. A
denoiser knows y and the log-SNR, whatever scale a schedule gives to z, and the flow is

  dy / dlogsnr = -(1/2) a s (a eps - s x)

with a^2 = sigmoid(logsnr) and s^2 = sigmoid(-logsnr); a eps - s x is v (Salimans & Ho
2022). From the data's end of the schedule to that of
noise it carries x to a y_1 whose density is known, and by the instantaneous change of
variables (Chen et al. 2018)

  log p(y_0) = log N(y_1; 0, I) + integral of div(dy / dlogsnr) dlogsnr

The divergence is v^T J v on average over probes v with E[v v^T] = I (Skilling;
Hutchinson), J v being one forward derivative of the denoiser.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import noise, prediction, schedules
from imagen_jax.types import Array, Float, Key, UInt8, typechecked

PROBES = ("rademacher", "gaussian", "exact")


class Likelihood(NamedTuple):
    """Of each example.

    Attributes:
      log_p: its log density in nats.
      y: where the flow takes it, unit normal over all data of a perfect model.
    """

    log_p: Float[Array, " B"]
    y: Float[Array, "B *data"]


def log_likelihood(
    keys: Key[Array, " B"],
    denoiser: prediction.Denoiser,
    x: Float[Array, "B *data"],
    cond: Conditioning,
    schedule: schedules.NoiseSchedule,
    *,
    steps: int = 100,
    probe: str = "rademacher",
) -> Likelihood:
    """log p(x | cond) in nats, of the pictures that the flow makes of the prior.

    The density is that of z at the schedule's t = 0, where sigma is below a pixel's
    step; the prior is `Sampler.prior`'s, noise of variance alpha^2 + sigma^2 at t = 1
    (Song et al. have sigma_max^2 for exploding levels: 2e-4 nats a dimension at 50).
    Runge and Kutta's method of fourth order, `steps` equal steps of log-SNR, four
    calls and derivatives of the denoiser each: the flow changes over about two units
    of log-SNR, whatever the data. To be called under `jit`.

    Args:
      keys: one per example, for its probe, which is kept all the way.
      denoiser: (z, level, cond) -> Prediction; examples must not touch each other.
      x: pictures in [-1, 1]; `dequantise` makes them of whole numbers.
      cond: conditions of the batch.
      schedule: only its log-SNR and scale at t = 0 and at t = 1 matter.
      steps: static.
      probe: "rademacher" (signs) or "gaussian", one per example: unbiased, and the
        mean over several keys is less noisy; "exact" takes every dimension in turn,
        for few.

    Raises:
      ValueError: for steps < 1 or another probe.
    """
    if steps < 1:
        raise ValueError(f"log_likelihood: steps must be >= 1, got {steps}.")
    first, last = (schedule(jnp.full((1,), t, jnp.float32)) for t in (0.0, 1.0))
    size = jnp.sqrt(jnp.square(first.alpha) + jnp.square(first.sigma))[0]
    y = x.astype(jnp.float32) / size
    tangents = _probes(keys, y, probe)

    def slope(y, logsnr):
        """dy / dlogsnr and its divergence."""
        flow = partial(_flow, denoiser, cond, logsnr)
        moved, along = jax.vmap(
            lambda v: jax.jvp(flow, (y,), (v,)), out_axes=(None, 0)
        )(tangents)
        return moved, jnp.mean(_inner(tangents, along), axis=0)

    span = (last.logsnr - first.logsnr)[0]
    h = span / steps

    def advance(carry, index):
        (y, total), logsnr = carry, first.logsnr[0] + index * h
        k1, d1 = slope(y, logsnr)
        k2, d2 = slope(y + 0.5 * h * k1, logsnr + 0.5 * h)
        k3, d3 = slope(y + 0.5 * h * k2, logsnr + 0.5 * h)
        k4, d4 = slope(y + h * k3, logsnr + h)
        y = y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        return (y, total + h / 6.0 * (d1 + 2.0 * d2 + 2.0 * d3 + d4)), None

    start = (y, jnp.zeros(x.shape[:1], jnp.float32))
    (y, total), _ = lax.scan(advance, start, jnp.arange(steps, dtype=jnp.float32))
    dimensions = math.prod(x.shape[1:])
    prior = -0.5 * (_inner(y, y, batch=1) + dimensions * math.log(2.0 * math.pi))
    return Likelihood(prior + total - dimensions * jnp.log(size), y)


@typechecked
def bits_per_dim(log_p: Float[Array, " B"], dimensions: int) -> Float[Array, " B"]:
    """Bits to code one of the 256 values of a pixel and channel.

    -log_p / (dimensions log 2) + 7: x is in [-1, 1], a value's share of it 2 / 256 =
    2^-7 (Song et al. 2021's convention).
    """
    return -log_p / (dimensions * math.log(2.0)) + 7.0


@typechecked
def dequantise(
    keys: Key[Array, " B"], image: UInt8[Array, "B *data"]
) -> Float[Array, "B *data"]:
    """(value + u) / 128 - 1 with u ~ U[0, 1): pictures for `bits_per_dim`.

    Uniform dequantisation (Theis et al. 2016): the mean of log p over u bounds the log
    probability of the whole numbers from below. Training has value / 127.5 - 1, half a
    step from these at most; the paper's code differs likewise.
    """
    u = jax.vmap(lambda key: jax.random.uniform(key, image.shape[1:], jnp.float32))
    return (image.astype(jnp.float32) + u(keys)) / 128.0 - 1.0


def _flow(denoiser, cond, logsnr, y):
    """dy / dlogsnr, on levels where y is z."""
    level = noise.variance_preserving(jnp.broadcast_to(logsnr, y.shape[:1]))
    x, eps, _ = denoiser(y, level, cond)
    _, alpha, sigma = noise.broadcast(level, y)
    return -0.5 * alpha * sigma * (alpha * eps - sigma * x)


def _probes(keys: Array, y: Array, kind: str) -> Float[Array, "P B *data"]:
    """Vectors v, the same for all steps, whose mean v v^T is I (or is so expected)."""
    shape = y.shape[1:]
    if kind == "rademacher":
        signs = jax.vmap(lambda key: jax.random.rademacher(key, shape, jnp.float32))
        return signs(keys)[None]
    if kind == "gaussian":
        return noise.normal(keys, y.shape)[None]
    if kind != "exact":
        raise ValueError(
            f"log_likelihood: probe must be one of {PROBES}, got {kind!r}."
        )
    dimensions = math.prod(shape)
    axes = math.sqrt(dimensions) * jnp.eye(dimensions, dtype=jnp.float32)
    axes = axes.reshape((dimensions, 1, *shape))
    return jnp.broadcast_to(axes, (dimensions, *y.shape))


def _inner(a: Array, b: Array, batch: int = 2) -> Array:
    """Sum of a b over all but the first `batch` axes."""
    return jnp.sum(a * b, axis=tuple(range(batch, a.ndim)))
