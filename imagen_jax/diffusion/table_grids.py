"""Grids of the steps of a discrete schedule: diffusers' spacings, DeepFloyd's presets.

On such a schedule `grids.LogSNR` and `grids.Karras` run too.
"""

import dataclasses

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


SPACINGS = ("leading", "trailing", "linspace")
Start = float | Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Spaced:
    """Steps of a table of T, named as diffusers names them (Lin et al. 2023, table 2).

    "leading" takes every (T // N)-th from its first, "trailing" every (T / N)-th from
    its last, "linspace" N with both ends. With `start` < 1 the table is its part below.

    Attributes:
      name: one of `SPACINGS`.
    """

    name: str

    @property
    def length(self) -> None:
        """Any number of steps."""

    def __call__(
        self, schedule: schedules.NoiseSchedule, steps: int, start: Start = 1.0
    ) -> Float[Array, " N_plus_1"]:
        """The times.

        Raises:
          ValueError: for a schedule without a table, or more steps than it has.
        """
        total = _table_of(schedule, self.name).steps
        if steps > total:
            raise ValueError(
                f"Grid: {self.name!r} has at most the {total} steps of the schedule, "
                f"got {steps}."
            )
        below = kept(total, start)
        rising = jnp.arange(steps, dtype=jnp.float32)
        if self.name == "leading":
            places = rising * jnp.maximum(below // steps, 1.0)
        elif self.name == "trailing":
            places = jnp.round(below - (steps - 1 - rising) * (below / steps)) - 1.0
        else:
            places = jnp.round(rising * ((below - 1.0) / max(steps - 1, 1)))
        return _times(places, below, total)


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
        self, schedule: schedules.NoiseSchedule, steps: int, start: Start = 1.0
    ) -> Float[Array, " N_plus_1"]:
        """The times; with `start` < 1 all are drawn together.

        Raises:
          ValueError: for a schedule without a table, or another number of steps.
        """
        if steps != self.length:
            raise ValueError(
                f"Preset: {self.name} has {self.length} steps, got {steps}."
            )
        total = _table_of(schedule, self.name).steps
        below = kept(total, start)
        places = np.array(respaced(PRESETS[self.name], total), np.float32)
        return _times(jnp.floor(places * (below / total) + 0.01), below, total)


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


def _table_of(
    schedule: schedules.NoiseSchedule, name: str
) -> schedules.DiscreteSchedule:
    if not isinstance(schedule, schedules.DiscreteSchedule):
        raise ValueError(
            f"Grid: {name!r} takes steps of a discrete schedule, got "
            f"{type(schedule).__name__}; use 'uniform'."
        )
    return schedule


def kept(total: int, start: Start) -> Float[Array, ""]:
    """How many of a table's steps lie below `start`, at least 1."""
    below = jnp.round(jnp.asarray(start, jnp.float32) * total)
    return jnp.clip(below, 1.0, float(total))


def _times(rising: Array, below: Array, total: int) -> Float[Array, " N_plus_1"]:
    """Falling times of a table's steps, and 0; none is above those kept."""
    places = jnp.clip(rising, 0.0, below - 1.0)
    return jnp.append(places[::-1], 0.0) / total
