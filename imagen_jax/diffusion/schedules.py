"""Noise schedules: t in [0, 1] -> NoiseLevel; 0 is data, 1 is noise."""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from imagen_jax.diffusion import noise
from imagen_jax.types import Array, Float


@runtime_checkable
class NoiseSchedule(Protocol):
    """A decreasing log-SNR of t; an implementation is hashable."""

    def __call__(self, t: Float[Array, " B"], /) -> noise.NoiseLevel:
        """The noise level at each t in [0, 1]."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """The cosine schedule, cut to a range of log-SNR and optionally shifted.

    logsnr(t) = -2 log tan(a_0 + t (a_1 - a_0)) + shift, where a_0 = arctan(
    exp(-logsnr_max / 2)) and a_1 = arctan(exp(-logsnr_min / 2)) (Nichol & Dhariwal
    2021; in this continuous form Salimans & Ho 2022 and Hoogeboom et al. 2023).
    Imagen's base and first super-resolution stages (Saharia et al. 2022, F.1, F.2).

    Attributes:
      logsnr_min: log-SNR at t = 1, before the shift.
      logsnr_max: log-SNR at t = 0, before the shift.
      shift: added to the log-SNR everywhere; 0 is the plain schedule.

    Raises:
      ValueError: if logsnr_min >= logsnr_max.
    """

    # Paper silent: where the cosine is cut. +-20 keeps sigma(0) = 4.5e-5, below any
    # 8-bit step, and z_1 pure noise to float32.
    logsnr_min: float = -20.0
    logsnr_max: float = 20.0
    shift: float = 0.0

    def __post_init__(self):
        if not self.logsnr_min < self.logsnr_max:
            raise ValueError(
                f"CosineSchedule: logsnr_min must be below logsnr_max, got "
                f"{self.logsnr_min} and {self.logsnr_max}."
            )

    def __call__(self, t: Float[Array, " B"], /) -> noise.NoiseLevel:
        """The noise level at each t in [0, 1]."""
        first = math.atan(math.exp(-0.5 * self.logsnr_max))
        # The last angle is near pi / 2, where float32 resolves its tangent badly.
        # With the angle and its complement, both ends are equally exact.
        last_complement = math.atan(math.exp(0.5 * self.logsnr_min))
        span = 0.5 * math.pi - first - last_complement
        t = t.astype(jnp.float32)
        angle = first + t * span
        complement = last_complement + (1.0 - t) * span
        logsnr = 2.0 * (jnp.log(jnp.sin(complement)) - jnp.log(jnp.sin(angle)))
        return noise.variance_preserving(logsnr + self.shift)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftedCosineSchedule:
    """The cosine schedule moved to another resolution.

    logsnr(t) = cosine(t) + 2 log(reference / resolution) (Hoogeboom et al. 2023,
    "simple diffusion"): averaging a picture down to `reference` pixels
    then leaves it as noisy as the plain schedule leaves a picture of that size.

    Attributes:
      resolution: side of the pictures in pixels.
      reference: side in pixels for which the plain schedule is right.
      logsnr_min: as in CosineSchedule, before the shift.
      logsnr_max: as in CosineSchedule, before the shift.

    Raises:
      ValueError: if a side is not positive or the range is empty.
    """

    resolution: int
    reference: int = 64
    logsnr_min: float = -20.0
    logsnr_max: float = 20.0

    def __post_init__(self):
        if self.resolution <= 0 or self.reference <= 0:
            raise ValueError(
                f"ShiftedCosineSchedule: resolution and reference must be positive, "
                f"got {self.resolution} and {self.reference}."
            )
        self.plain()

    def plain(self) -> CosineSchedule:
        """The same schedule as a CosineSchedule with its shift."""
        return CosineSchedule(
            logsnr_min=self.logsnr_min,
            logsnr_max=self.logsnr_max,
            shift=2.0 * math.log(self.reference / self.resolution),
        )

    def __call__(self, t: Float[Array, " B"], /) -> noise.NoiseLevel:
        """The noise level at each t in [0, 1]."""
        return self.plain()(t)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearSchedule:
    """The variance-preserving schedule with linear beta, in continuous time.

    log alpha(t) = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2 (Song et al. 2021,
    appendix C). The defaults are the twin of DDPM's 1000 betas from 1e-4 to 0.02, which
    Imagen's second super-resolution stage uses with continuous t (Saharia et al. 2022,
    F.3). The log-SNR ends at -10.05.

    Attributes:
      beta_min: beta at t = 0, per unit of t.
      beta_max: beta at t = 1, per unit of t.
      logsnr_max: cap of the log-SNR, which is otherwise infinite at t = 0.

    Raises:
      ValueError: if not 0 < beta_min <= beta_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    # Paper silent: the continuous twin needs a cap at t = 0; the cosine schedule's.
    logsnr_max: float = 20.0

    def __post_init__(self):
        if not 0.0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"LinearSchedule: 0 < beta_min <= beta_max is required, got "
                f"{self.beta_min} and {self.beta_max}."
            )

    def __call__(self, t: Float[Array, " B"], /) -> noise.NoiseLevel:
        """The noise level at each t in [0, 1]."""
        t = t.astype(jnp.float32)
        # integral = -2 log alpha, so that the SNR is 1 / expm1(integral).
        integral = t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))
        floor = math.log1p(math.exp(-self.logsnr_max))
        logsnr = -jnp.log(jnp.expm1(jnp.maximum(integral, floor)))
        return noise.variance_preserving(logsnr)
