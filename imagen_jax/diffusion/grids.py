"""Time grids: at which times a sampler calls the network."""

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import lax

from imagen_jax.diffusion import noise, schedules, table_grids
from imagen_jax.types import Array, Float

Start = float | Float[Array, ""]


@runtime_checkable
class Grid(Protocol):
    """The times of N steps; an implementation is hashable."""

    @property
    def name(self) -> str:
        """What `by_name` knows it by."""
        ...

    @property
    def length(self) -> int | None:
        """The only number of steps that it has, or None."""
        ...

    def __call__(
        self, schedule: schedules.NoiseSchedule, steps: int, start: Start = 1.0
    ) -> Float[Array, " N_plus_1"]:
        """Falling times in [0, start]: of each call of the network, and the last.

        Args:
          schedule: whose times they are.
          steps: how many, N; static.
          start: the time before which nothing happens, in (0, 1], may be traced. The
            first call's is at most this.
        """
        ...


@dataclasses.dataclass(frozen=True)
class UniformTime:
    """t = start, ..., start / N, 0 in equal steps (Saharia et al. 2022, app. A)."""

    @property
    def name(self) -> str:
        """Its name in configs."""
        return "uniform"

    @property
    def length(self) -> None:
        """Any number of steps."""

    def __call__(
        self, schedule: schedules.NoiseSchedule, steps: int, start: Start = 1.0
    ) -> Float[Array, " N_plus_1"]:
        """The times, whatever the schedule."""
        return jnp.arange(steps, -1, -1, dtype=jnp.float32) / steps * start


UNIFORM = UniformTime()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSNR:
    """N equal steps of log-SNR (Lu et al. 2022, arXiv 2206.00927), on any schedule.

    On a discrete schedule the N first levels are the table's nearest ones, each once.

    Attributes:
      logsnr_min: where they begin, or where the schedule does at `start`.
      logsnr_max: where they end, or where the schedule does.

    Raises:
      ValueError: if logsnr_min >= logsnr_max.
    """

    # Paper silent: Imagen has no such grid. Beyond these ends a picture is noise, or
    # its noise lies below a step of 8 bits.
    logsnr_min: float = -10.0
    logsnr_max: float = 10.0

    def __post_init__(self):
        if not self.logsnr_min < self.logsnr_max:
            raise ValueError(
                f"LogSNR: logsnr_min must be below logsnr_max, got {self.logsnr_min} "
                f"and {self.logsnr_max}."
            )

    @property
    def name(self) -> str:
        """Its name in configs."""
        return "logsnr"

    @property
    def length(self) -> None:
        """Any number of steps."""

    def __call__(
        self, schedule: schedules.NoiseSchedule, steps: int, start: Start = 1.0
    ) -> Float[Array, " N_plus_1"]:
        """The times."""
        first, last = ends(schedule, start, self.logsnr_min, self.logsnr_max)
        along = jnp.arange(steps + 1, dtype=jnp.float32) / steps
        return times_of(schedule, first + along * (last - first), start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Karras:
    """Steps of Karras et al. 2022, eq. 5, on any schedule; sigma is its sigma / alpha.

    sigma_i^(1 / rho) falls in equal steps from sigma_max at i = 0 to sigma_min at i =
    N - 1, the last call; the last step ends at t = 0. On a discrete schedule the levels
    are the table's nearest ones, each once.

    Attributes:
      sigma_min: of the last call, or the schedule's least; 0 is always that.
      sigma_max: of the first call, or the schedule's at `start`; inf is always that.
      rho: the larger, the more steps at little noise; >= 1.

    Raises:
      ValueError: unless 0 <= sigma_min < sigma_max and rho >= 1.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self):
        if not 0.0 <= self.sigma_min < self.sigma_max or self.rho < 1.0:
            raise ValueError(
                "Karras: 0 <= sigma_min < sigma_max and rho >= 1 are required, got "
                f"{self.sigma_min}, {self.sigma_max} and {self.rho}."
            )

    @property
    def name(self) -> str:
        """Its name in configs."""
        return "karras"

    @property
    def length(self) -> None:
        """Any number of steps."""

    def __call__(
        self, schedule: schedules.NoiseSchedule, steps: int, start: Start = 1.0
    ) -> Float[Array, " N_plus_1"]:
        """The times."""
        low, high = (
            -2.0 * math.log(s) if s > 0.0 else math.inf
            for s in (self.sigma_max, self.sigma_min)
        )
        # sigma^(1 / rho) = exp(-logsnr / (2 rho)).
        power = -0.5 / self.rho
        first, last = (jnp.exp(a * power) for a in ends(schedule, start, low, high))
        along = jnp.arange(steps, dtype=jnp.float32) / max(steps - 1, 1)
        times = times_of(
            schedule, jnp.log(first + along * (last - first)) / power, start
        )
        return jnp.append(times, 0.0)


def by_name(name: str, **settings: Any) -> Grid:
    """The grid called "uniform", "logsnr", "karras", or of a table.

    Args:
      name: which.
      **settings: fields of `LogSNR` or `Karras`; the others have none.

    Raises:
      ValueError: for another name, or settings that the grid lacks.
    """
    if name not in NAMES:
        raise ValueError(f"sampling.grid: must be one of {NAMES}, got {name!r}.")
    kinds = {"uniform": UniformTime, "logsnr": LogSNR, "karras": Karras}
    known = [f.name for f in dataclasses.fields(kinds[name])] if name in kinds else []
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(
            f"sampling.grid: {name!r} must have settings of {known}, got {unknown}."
        )
    if name in kinds:
        return kinds[name](**settings)
    if name in table_grids.PRESETS:
        return table_grids.Preset(name)
    return table_grids.Spaced(name)


NAMES = ("uniform", "logsnr", "karras", *table_grids.SPACINGS, *table_grids.PRESETS)


def ends(
    schedule: schedules.NoiseSchedule, start: Start, low: float, high: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The log-SNR at which a run begins and ends: low and high, within the schedule."""
    first = schedule(jnp.asarray(start, jnp.float32)[None]).logsnr[0]
    last = schedule(jnp.zeros(1)).logsnr[0]
    first = jnp.maximum(first, low)
    return first, jnp.maximum(jnp.minimum(last, high), first)


def times_of(
    schedule: schedules.NoiseSchedule, logsnr: Float[Array, " N"], start: Start
) -> Float[Array, " N"]:
    """Times in [0, start] at which a schedule has these rising values of log-SNR.

    On a table, its nearest steps; none twice while it has so many below `start`.
    """
    if isinstance(schedule, schedules.DiscreteSchedule):
        total = schedule.steps
        level = noise.variance_preserving(logsnr)
        places = jnp.round(schedule.time(level) * total)[::-1]
        # Rising now. Where several fall on one step, the next ones above are taken.
        order = jnp.arange(places.size, dtype=jnp.float32)
        places = lax.cummax(places - order) + order
        top = table_grids.kept(total, start) - 1
        places = jnp.minimum(places, top - order[::-1])
        return jnp.maximum(places, 0.0)[::-1] / total

    def halve(_, bounds):
        less, more = bounds
        middle = 0.5 * (less + more)
        noisier = schedule(middle).logsnr < logsnr
        return jnp.where(noisier, less, middle), jnp.where(noisier, middle, more)

    # Near 0 a float32 is far finer than 2^-24.
    top = jnp.broadcast_to(jnp.asarray(start, jnp.float32), logsnr.shape)
    less, _ = lax.fori_loop(0, 60, halve, (jnp.zeros_like(logsnr), top))
    return jnp.where(schedule(top).logsnr >= logsnr, top, less)
