"""Noise schedules: t in [0, 1] -> NoiseLevel; 0 is data, 1 is noise."""

import dataclasses
import functools
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

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
        _check_betas("LinearSchedule", self.beta_min, self.beta_max)

    def __call__(self, t: Float[Array, " B"], /) -> noise.NoiseLevel:
        """The noise level at each t in [0, 1]."""
        t = t.astype(jnp.float32)
        # integral = -2 log alpha, so that the SNR is 1 / expm1(integral).
        integral = t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))
        floor = math.log1p(math.exp(-self.logsnr_max))
        logsnr = -jnp.log(jnp.expm1(jnp.maximum(integral, floor)))
        return noise.variance_preserving(logsnr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubVPSchedule:
    """The sub-variance-preserving SDE with linear beta: sigma = 1 - alpha^2.

    alpha is `LinearSchedule`'s, exp(-B / 2) with B(t) = t beta_min + t^2 (beta_max -
    beta_min) / 2 (Song et al. 2021, section 3.4 and appendix C); hence logsnr =
    -2 log(2 sinh(B / 2)). alpha^2 + sigma^2 is between 3 / 4 and 1.

    Attributes:
      beta_min: beta at t = 0, per unit of t.
      beta_max: beta at t = 1, per unit of t.
      logsnr_max: cap of the log-SNR, which is otherwise infinite at t = 0.

    Raises:
      ValueError: if not 0 < beta_min <= beta_max.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    # Paper silent: it cuts t at 1e-5 instead, where this log-SNR is 27.6.
    logsnr_max: float = 20.0

    def __post_init__(self):
        _check_betas("SubVPSchedule", self.beta_min, self.beta_max)

    def __call__(self, t: Float[Array, " B"], /) -> noise.NoiseLevel:
        """The noise level at each t in [0, 1]."""
        t = t.astype(jnp.float32)
        integral = t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))
        floor = 2.0 * math.asinh(0.5 * math.exp(-0.5 * self.logsnr_max))
        integral = jnp.maximum(integral, floor)
        alpha, sigma = jnp.exp(-0.5 * integral), -jnp.expm1(-integral)
        return noise.NoiseLevel(-integral - 2.0 * jnp.log(sigma), alpha, sigma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplodingSchedule:
    """The variance-exploding SDE: alpha = 1, sigma geometric in t.

    sigma(t) = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021, appendix C; SMLD's
    levels, Song & Ermon 2019, in continuous time). The log-SNR is linear in t.

    Attributes:
      sigma_min: at t = 0.
      sigma_max: at t = 1; about the largest distance between two pictures, as vectors
        (Song & Ermon 2020, technique 1).

    Raises:
      ValueError: if not 0 < sigma_min < sigma_max.
    """

    # The paper's for CIFAR-10, whose pixels it has in [0, 1].
    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self):
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                "ExplodingSchedule: 0 < sigma_min < sigma_max is required, got "
                f"{self.sigma_min} and {self.sigma_max}."
            )

    def __call__(self, t: Float[Array, " B"], /) -> noise.NoiseLevel:
        """The noise level at each t in [0, 1]."""
        rate = math.log(self.sigma_max / self.sigma_min)
        return noise.variance_exploding(
            self.sigma_min * jnp.exp(rate * t.astype(jnp.float32))
        )


def _check_betas(name: str, beta_min: float, beta_max: float) -> None:
    if not 0.0 < beta_min <= beta_max:
        raise ValueError(
            f"{name}: 0 < beta_min <= beta_max is required, got {beta_min} and "
            f"{beta_max}."
        )


BETAS = ("squaredcos_cap_v2", "linear", "scaled_linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteSchedule:
    """A table of noise levels: DDPM's steps i = 0 .. steps - 1, at t = i / steps.

    alpha_i^2 is the product of 1 - beta_j over j <= i (Ho et al. 2020, section 2). The
    betas are those of diffusers' DDPMScheduler, in its precision: "linear" from
    beta_first to beta_last; "scaled_linear", whose roots are linear;
    "squaredcos_cap_v2", the cosine of Nichol & Dhariwal 2021, eq. 17, with betas of
    0.999 at most, DeepFloyd IF's. Between the steps the level is the last one's.

    Attributes:
      betas: one of `BETAS`.
      steps: how many there are.
      beta_first: of the linear ones.
      beta_last: of the linear ones.

    Raises:
      ValueError: for other betas, none, or betas not between 0 and 1.
    """

    betas: str = "squaredcos_cap_v2"
    steps: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02

    def __post_init__(self):
        if self.betas not in BETAS:
            raise ValueError(
                f"DiscreteSchedule: betas must be one of {BETAS}, got {self.betas!r}."
            )
        if self.steps < 1:
            raise ValueError(f"DiscreteSchedule: steps must be >= 1, got {self.steps}.")
        if not 0.0 < self.beta_first <= self.beta_last < 1.0:
            raise ValueError(
                "DiscreteSchedule: 0 < beta_first <= beta_last < 1 is required, got "
                f"{self.beta_first} and {self.beta_last}."
            )

    def __call__(self, t: Float[Array, " B"], /) -> noise.NoiseLevel:
        """The noise level at each t in [0, 1]."""
        # Rounding may have put i / steps below itself.
        place = jnp.floor(t.astype(jnp.float32) * self.steps + 0.01)
        place = jnp.clip(place, 0, self.steps - 1).astype(jnp.int32)
        return noise.NoiseLevel(*(jnp.asarray(column)[place] for column in table(self)))

    def time(self, level: noise.NoiseLevel) -> Float[Array, " B"]:
        """i / steps of the step whose log-SNR is nearest: what networks are told."""
        logsnr = table(self)[0]
        between = jnp.asarray(0.5 * (logsnr[:-1] + logsnr[1:]))
        # The log-SNR falls, and what is searched must rise.
        place = jnp.searchsorted(-between, -level.logsnr)
        return place.astype(jnp.float32) / self.steps


@functools.cache
def table(schedule: DiscreteSchedule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log-SNR, alpha and sigma of every step, float32 [steps]."""
    n, first, last = schedule.steps, schedule.beta_first, schedule.beta_last
    if schedule.betas == "squaredcos_cap_v2":
        left = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1.0 - left[1:] / left[:-1], 0.999)
    elif schedule.betas == "linear":
        betas = np.linspace(first, last, n)
    else:
        betas = np.linspace(first**0.5, last**0.5, n) ** 2
    # Networks trained with float32 tables know these levels and not the exact ones:
    # at 1 - 0.999 rounding changes the fifth digit.
    kept = np.float32(1.0) - betas.astype(np.float32)
    squared = np.cumprod(kept, dtype=np.float64).astype(np.float32).astype(np.float64)
    logsnr = np.log(squared) - np.log1p(-squared)
    alpha, sigma = np.sqrt(squared), np.sqrt(1.0 - squared)
    return (
        logsnr.astype(np.float32),
        alpha.astype(np.float32),
        sigma.astype(np.float32),
    )


@functools.cache
def preserves_variance(schedule: NoiseSchedule) -> bool:
    """Whether alpha^2 + sigma^2 = 1 at every t; looked at where it could fail."""
    with jax.ensure_compile_time_eval():
        t = jnp.array([0.0, 0.25, 0.5, 0.75, 1.0], jnp.float32)
        return noise.is_variance_preserving(schedule(t))


# What a config calls them.
KINDS = {
    "cosine": CosineSchedule,
    "linear": LinearSchedule,
    "shifted_cosine": ShiftedCosineSchedule,
    "discrete": DiscreteSchedule,
    "sub_vp": SubVPSchedule,
    "ve": ExplodingSchedule,
}
