"""How the guidance weight changes along a run."""

import dataclasses
from functools import partial
from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from imagen_jax import pytrees
from imagen_jax.diffusion import guidance, noise
from imagen_jax.types import Array, Float, Int


@runtime_checkable
class WeightSchedule(Protocol):
    """A registered pytree: its numbers may change without recompiling."""

    @property
    def name(self) -> str:
        """What `by_name` knows it by."""
        ...

    def __call__(
        self, w: float | Float[Array, ""], levels: noise.NoiseLevel
    ) -> guidance.Weight:
        """The weight of each noise level.

        Args:
          w: the guidance weight that a person turns.
          levels: those at which the run's steps begin, fields of shape [N].
        """
        ...


@partial(pytrees.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """w at all steps (Saharia et al. 2022, eq. 2)."""

    @property
    def name(self) -> str:
        """Its name in configs."""
        return "constant"

    def __call__(
        self, w: float | Float[Array, ""], levels: noise.NoiseLevel
    ) -> guidance.Weight:
        """w itself."""
        return w


CONSTANT = Constant()


@partial(pytrees.register_dataclass, data_fields=["begin"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """From `begin` at pure noise to w without noise, linear in t (Wang et al. 2024).

    t is the cosine schedule's of the level (`noise.cosine_time`), whatever the model's
    schedule and the grid. The paper's rising schedule has the mean of a constant one:
    begin = 1 and 2 w - 1 for its w.

    Attributes:
      begin: the weight at t = 1; above w the weight falls along the run.
    """

    begin: float | Float[Array, ""] = 1.0

    @property
    def name(self) -> str:
        """Its name in configs."""
        return "linear"

    def __call__(
        self, w: float | Float[Array, ""], levels: noise.NoiseLevel
    ) -> guidance.Weight:
        """A function of the level, whichever the steps are."""

        def weight(level):
            return w + (self.begin - w) * noise.cosine_time(level)

        return weight


@partial(pytrees.register_dataclass, data_fields=["low", "first"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Oscillating:
    """w in the first steps, then `low` and w by turns (Ho et al. 2022, section 2.6.2).

    Imagen Video, which alternates such weights as 15 and 1 after "a certain number" of
    steps; it writes 1 + w for this w, so its pair is 16 and 2 here.

    Attributes:
      low: the other weight.
      first: how many steps begin with w; step `first` is the first with `low`.
    """

    low: float | Float[Array, ""] = 1.0
    # Paper silent: how many.
    first: int | Int[Array, ""] = 0

    @property
    def name(self) -> str:
        """Its name in configs."""
        return "oscillating"

    def __call__(
        self, w: float | Float[Array, ""], levels: noise.NoiseLevel
    ) -> guidance.Weight:
        """A function of the level that knows the steps' own."""

        def weight(level):
            after = step_of(level, levels) - jnp.asarray(self.first, jnp.int32)
            lowered = jnp.logical_and(after >= 0, after % 2 == 0)
            return jnp.where(
                lowered, *(jnp.asarray(a, jnp.float32) for a in (self.low, w))
            )

        return weight


def step_of(level: noise.NoiseLevel, levels: noise.NoiseLevel) -> Int[Array, " B"]:
    """Which step of a run calls the network at this level [B].

    Step i owns the levels down from its own, levels[i], to a tenth of the way from step
    i - 1's: rounding does no harm, and a solver may renew noise before it calls.
    """
    logsnr = levels.logsnr
    bounds = logsnr[:-1] + 0.1 * jnp.diff(logsnr)
    return jnp.sum(level.logsnr[:, None] > bounds[None], axis=1, dtype=jnp.int32)


# Name -> the class, and what its numbers are.
KINDS: dict[str, tuple[type, dict[str, type]]] = {
    "constant": (Constant, {}),
    "linear": (Linear, {"begin": float}),
    "oscillating": (Oscillating, {"low": float, "first": int}),
}


def by_name(text: str) -> WeightSchedule:
    """The schedule "constant", "linear:BEGIN" or "oscillating:LOW:FIRST".

    Numbers left out are the schedule's own.

    Raises:
      ValueError: for another name, too many numbers or what is none.
    """
    name, *numbers = text.split(":")
    try:
        cls, fields = KINDS[name]
        given = zip(list(fields)[: len(numbers)], numbers, strict=True)
        return cls(**{field: fields[field](number) for field, number in given})
    except (KeyError, ValueError) as error:
        raise ValueError(
            "guidance_schedule: must be 'constant', 'linear:BEGIN' or "
            f"'oscillating:LOW:FIRST', got {text!r}."
        ) from error
