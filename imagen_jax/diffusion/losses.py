"""The training loss of a denoising network: one number per example."""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import noise, prediction, process, schedules
from imagen_jax.types import Array, Float, Key, typechecked


@runtime_checkable
class Weight(Protocol):
    """The factor of the squared error of the network's target, per example."""

    def __call__(
        self, level: noise.NoiseLevel, parameterization: prediction.Parameterization, /
    ) -> Float[Array, " B"]:
        """The weight at each level."""
        ...


def uniform(
    level: noise.NoiseLevel, parameterization: prediction.Parameterization, /
) -> Float[Array, " B"]:
    """1: the plain error of the target, Imagen's with EPS (Saharia et al., eq. 1)."""
    return jnp.ones_like(level.logsnr)


@dataclasses.dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma) on the error of x (Hang et al. 2023).

    In the space of the target that is min(SNR, gamma) / SNR for eps, min(SNR, gamma)
    for x and min(SNR, gamma) / (SNR + 1) for v. Taken by logarithms, so that SNR =
    e^20 loses nothing. A `floor` above 0 takes max(SNR, floor) first, as the truncated
    SNR weight does with 1 (Salimans & Ho 2022, section 4): what a picture shows is
    decided where SNR is small, which min-SNR hardly asks for.

    Attributes:
      gamma: the largest weight on the error of x.
      floor: the smallest.

    Raises:
      ValueError: unless 0 <= floor <= gamma and gamma > 0.
    """

    gamma: float = 5.0
    floor: float = 0.0

    def __post_init__(self):
        if self.gamma <= 0.0:
            raise ValueError(f"MinSNR: gamma must be positive, got {self.gamma}.")
        if not 0.0 <= self.floor <= self.gamma:
            raise ValueError(
                f"MinSNR: floor must lie in [0, gamma = {self.gamma}], got "
                f"{self.floor}."
            )

    def __call__(
        self, level: noise.NoiseLevel, parameterization: prediction.Parameterization, /
    ) -> Float[Array, " B"]:
        """The weight at each level."""
        lowest = math.log(self.floor) if self.floor else -math.inf
        log_weight_of_x = jnp.clip(level.logsnr, lowest, math.log(self.gamma))
        return jnp.exp(log_weight_of_x - parameterization.log_gain(level))


def min_snr(gamma: float = 5.0) -> MinSNR:
    """The min-SNR weight with its cap gamma."""
    return MinSNR(gamma)


def truncated_snr(gamma: float = 5.0) -> MinSNR:
    """The min-SNR weight that never falls below 1."""
    return MinSNR(gamma, floor=1.0)


def by_name(name: str) -> Weight:
    """The weighting called "uniform", "min_snr" or "truncated_snr".

    Raises:
      ValueError: for another name.
    """
    weights = (uniform, min_snr(), truncated_snr())
    known = dict(zip(("uniform", "min_snr", "truncated_snr"), weights, strict=True))
    if name not in known:
        raise ValueError(f"Weight: must be one of {list(known)}, got {name!r}.")
    return known[name]


@typechecked
def times(
    key: Key[Array, ""], batch: int, stratified: bool = False
) -> Float[Array, " B"]:
    """t ~ U(0, 1) for each example (Saharia et al. 2022, appendix F).

    Stratified: t_i = (i / B + u) mod 1 with one u (Kingma et al. 2021, VDM),
    uniform for each example but evenly spread over the batch: a steadier loss.
    """
    if not stratified:
        return jax.random.uniform(key, (batch,), jnp.float32)
    offset = jax.random.uniform(key, (), jnp.float32)
    return (jnp.arange(batch, dtype=jnp.float32) / batch + offset) % 1.0


@typechecked
def diffusion_loss(
    key: Key[Array, ""],
    x: Float[Array, "B *data"],
    cond: Conditioning,
    network_output: Callable[[Array, noise.NoiseLevel, Conditioning], Array],
    schedule: schedules.NoiseSchedule,
    *,
    parameterization: prediction.Parameterization,
    weight: Weight = uniform,
    stratified: bool = False,
) -> Float[Array, " B"]:
    """E_{t, eps} weight(t) |network output - target|^2, the mean over pixels.

    Saharia et al. 2022, eq. 1. `network_output(z, level, cond)` is the network's raw
    output in the shape of x, which lies in [-1, 1]; the error is taken in float32. A
    learned variance beside it is not trained: no gradient reaches its channels.

    Raises:
      ValueError: for v with a schedule that does not preserve variance.
    """
    prediction.check(parameterization, schedule)
    key_t, key_eps = jax.random.split(key)
    level = schedule(times(key_t, x.shape[0], stratified))
    x = x.astype(jnp.float32)
    z, eps = process.diffuse(key_eps, x, level)
    output, _ = prediction.split(network_output(z, level, cond), z)
    output = output.astype(jnp.float32)
    error = jnp.square(output - parameterization.target(x, eps, level))
    per_example = jnp.mean(error, axis=tuple(range(1, x.ndim)))
    return weight(level, parameterization) * per_example
