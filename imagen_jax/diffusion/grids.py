"""Time grids: at which times a sampler calls the network."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from imagen_jax.diffusion import schedules
from imagen_jax.types import Array, Float

# DeepFloyd IF's respacings (deepfloyd_if/model/respace.py): its 1000 steps in equal
# parts, least noise first, and how many steps of each part are taken.
PRESETS = {
    "fast27": (10, 10, 3, 2, 2),
    "smart27": (7, 4, 2, 1, 2, 4, 7),
    "smart50": (10, 6, 4, 3, 2, 2, 3, 4, 6, 10),
    "smart100": (
        *(1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3),
        *(4, 4, 5, 5, 6, 7, 7, 8, 9, 10, 13),
    ),
    "smart185": (
        *(1, 1, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7),
        *(8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20),
    ),
    "super27": (1, 1, 1, 1, 1, 1, 1, 2, 5, 13),
    "super40": (2, 2, 2, 2, 2, 2, 3, 4, 6, 15),
    "super100": (4, 4, 6, 6, 8, 8, 10, 10, 14, 30),
}


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
        self, schedule: schedules.NoiseSchedule, steps: int
    ) -> Float[Array, " N_plus_1"]:
        """Falling times in [0, 1]: of each call of the network, and the last, 0."""
        ...


@dataclasses.dataclass(frozen=True)
class UniformTime:
    """t = 1, 1 - 1/N, ..., 1/N, 0 (Saharia et al. 2022, appendix A)."""

    @property
    def name(self) -> str:
        """Its name in configs."""
        return "uniform"

    @property
    def length(self) -> None:
        """Any number of steps."""

    def __call__(
        self, schedule: schedules.NoiseSchedule, steps: int
    ) -> Float[Array, " N_plus_1"]:
        """The times, whatever the schedule."""
        return jnp.arange(steps, -1, -1, dtype=jnp.float32) / steps


UNIFORM = UniformTime()


@dataclasses.dataclass(frozen=True)
class Leading:
    """Every (T // N)-th step of a table of T from its first: diffusers' "leading"."""

    @property
    def name(self) -> str:
        """Its name in configs."""
        return "leading"

    @property
    def length(self) -> None:
        """Any number of steps."""

    def __call__(
        self, schedule: schedules.NoiseSchedule, steps: int
    ) -> Float[Array, " N_plus_1"]:
        """The times.

        Raises:
          ValueError: for a schedule without a table, or more steps than it has.
        """
        total = _steps_of(schedule, "leading")
        if steps > total:
            raise ValueError(
                f"Leading: at most the {total} steps of the schedule, got {steps}."
            )
        return _times(np.arange(steps) * (total // steps), total)


@dataclasses.dataclass(frozen=True)
class Preset:
    """One of DeepFloyd IF's respacings.

    Attributes:
      name: one of `PRESETS`.
    """

    name: str

    @property
    def length(self) -> int:
        """Its number of steps."""
        return sum(PRESETS[self.name])

    def __call__(
        self, schedule: schedules.NoiseSchedule, steps: int
    ) -> Float[Array, " N_plus_1"]:
        """The times.

        Raises:
          ValueError: for a schedule without a table, or another number of steps.
        """
        if steps != self.length:
            raise ValueError(
                f"Preset: {self.name} has {self.length} steps, got {steps}."
            )
        total = _steps_of(schedule, self.name)
        return _times(np.array(respaced(PRESETS[self.name], total)), total)


def respaced(counts: tuple[int, ...], total: int) -> list[int]:
    """Steps of a table, rising: counts[p] of its p-th part, its ends among them.

    The respacing of Nichol & Dhariwal 2021, section 4; a part of which one step is
    taken gives its first.
    """
    places, first = [], 0
    for part, count in enumerate(counts):
        size = total // len(counts) + (part < total % len(counts))
        stride = (size - 1) / (count - 1) if count > 1 else 0.0
        # Summed as theirs are: 7 strides of 99 / 14 round down.
        along = np.cumsum([0.0] + [stride] * (count - 1))
        places += [first + round(float(a)) for a in along]
        first += size
    return places


def by_name(name: str) -> Grid:
    """The grid called "uniform", "leading" or as one of `PRESETS`.

    Raises:
      ValueError: for another name.
    """
    if name in PRESETS:
        return Preset(name)
    grids = {"uniform": UNIFORM, "leading": Leading()}
    if name not in grids:
        raise ValueError(
            f"sampling.grid: must be one of {sorted({*grids, *PRESETS})}, got {name!r}."
        )
    return grids[name]


def _steps_of(schedule: schedules.NoiseSchedule, name: str) -> int:
    if not isinstance(schedule, schedules.DiscreteSchedule):
        raise ValueError(
            f"Grid: {name!r} takes steps of a discrete schedule, got "
            f"{type(schedule).__name__}; use 'uniform'."
        )
    return schedule.steps


def _times(rising: np.ndarray, total: int) -> Float[Array, " N_plus_1"]:
    falling = np.concatenate([rising[::-1], [0]])
    return jnp.asarray((falling / total).astype(np.float32))
