"""Solvers: from a noisier level t to a less noisy level s.

A solver is an `init` and an `update` around its own state, so that methods of one
call, of two calls and with history fit the same loop. Here stand what all share, and
DDPM's and DDIM's; `karras` and `multistep` have others.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from imagen_jax import pytrees
from imagen_jax.diffusion import noise, prediction, process, schedules
from imagen_jax.types import Array, Float, Key

TINY = 1e-20  # a variance whose logarithm is finite

# denoise(z, level) -> Prediction: a Denoiser with its condition bound.
Denoise = Callable[[Array, noise.NoiseLevel], prediction.Prediction]


class State(NamedTuple):
    """What a one-call solver carries; others have at least these two fields.

    Attributes:
      z: the noisy picture at the present level.
      x: the last predicted picture; zeros before the first step.
    """

    z: Float[Array, "B *data"]
    x: Float[Array, "B *data"]


@runtime_checkable
class Solver(Protocol):
    """A registered pytree: numbers that may change without recompiling are leaves.

    The state is a pytree too, all of its leaves [B, ...], `z` and `x` among them.
    `init` forgets what was before: to leave the grid's order, as resampling does, begin
    anew from z.
    """

    @property
    def calls(self) -> int:
        """Of the network in each step, at most."""
        return 1

    def check(self, schedule: schedules.NoiseSchedule) -> None:
        """Raise a ValueError for a schedule on which the solver is wrong."""

    def init(self, z: Float[Array, "B *data"]) -> Any:
        """The state before the first step; of a solver without history, a `State`."""
        return start(z)

    def update(
        self,
        keys: Key[Array, " B"],
        state: Any,
        denoise: Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> Any:
        """The state at level s, from that at level t; one key per example."""
        ...


def start(z: Float[Array, "B *data"]) -> State:
    """The state of a solver without history before its first step."""
    z = z.astype(jnp.float32)
    return State(z, jnp.zeros_like(z))


def require(name: str, value: Any, low: float, high: float, why: str) -> None:
    """Refuse a number outside [low, high]; arrays and JAX's placeholders pass.

    Raises:
      ValueError: with `why` at its end.
    """
    if isinstance(value, int | float) and not low <= value <= high:
        raise ValueError(f"{name} must be in [{low}, {high}], got {value}. {why}")


@partial(pytrees.register_dataclass, data_fields=["eta"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIM(Solver):
    """z_s = alpha_s x + sqrt(sigma_s^2 - std^2) eps + std xi, xi ~ N(0, I).

    std^2 = eta^2 (1 - r) sigma_s^2, r = exp(logsnr_t - logsnr_s): the posterior's
    variance, scaled (Song, Meng & Ermon 2020, eqs. 12 and 16). With eta = 0 and eps =
    (z_t - alpha_t x) / sigma_t this is Saharia et al. 2022, appendix A, a solver of the
    probability-flow ODE of order 1; with eta = 1 it is `Ancestral` with gamma = 0. A
    learned variance is not read.

    Attributes:
      eta: in [0, 1], may be traced; the larger, the more noise is renewed.

    Raises:
      ValueError: if eta is a number outside [0, 1].
    """

    eta: float | Float[Array, ""] = 0.0

    def __post_init__(self):
        why = "0 renews no noise, 1 as much as the posterior has."
        require("DDIM: eta", self.eta, 0.0, 1.0, why)

    def update(
        self,
        keys: Key[Array, " B"],
        state: State,
        denoise: Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> State:
        """One step from level t to level s, with fresh noise from `keys`."""
        x, eps, _ = denoise(state.z, level_t)
        renewed = -jnp.expm1(level_t.logsnr - level_s.logsnr) * jnp.square(self.eta)
        kept = noise.expand(level_s.sigma * jnp.sqrt(1.0 - renewed), x)
        std = noise.expand(level_s.sigma * jnp.sqrt(renewed), x)
        z = noise.expand(level_s.alpha, x) * x + kept * eps
        return State(z + std * noise.normal(keys, x.shape), x)


@partial(pytrees.register_dataclass, data_fields=["gamma"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral(Solver):
    """The discrete-time ancestral sampler (Saharia et al. 2022, eqs. 5 and 6).

    z_s ~ N(mean(z_t, x), var_min^(1 - gamma) var_max^gamma), the moments as in
    `process.posterior`. A gamma that the network predicts, one a pixel, comes before
    the solver's own (Nichol & Dhariwal 2021, eq. 15).

    Attributes:
      gamma: in [0, 1], may be traced; the larger, the more noise is renewed.

    Raises:
      ValueError: if gamma is a number outside [0, 1].
    """

    # Paper silent: gamma. 0.3 stays near the lower bound, which is right for data far
    # narrower than N(0, I); the upper one adds noise that few steps cannot remove.
    gamma: float | Float[Array, ""] = 0.3

    def __post_init__(self):
        why = "0 is the posterior's own variance, 1 the forward process's."
        require("Ancestral: gamma", self.gamma, 0.0, 1.0, why)

    def update(
        self,
        keys: Key[Array, " B"],
        state: State,
        denoise: Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> State:
        """One step from level t to level s, with fresh noise from `keys`."""
        x, _, gamma = denoise(state.z, level_t)
        mean, var_min, var_max = process.posterior(state.z, x, level_t, level_s)
        fresh = noise.normal(keys, mean.shape)
        if gamma is None:
            std = jnp.sqrt(var_min ** (1.0 - self.gamma) * var_max**self.gamma)
            return State(mean + noise.expand(std, mean) * fresh, x)
        low, high = (
            noise.expand(jnp.log(jnp.maximum(variance, TINY)), mean)
            for variance in (var_min, var_max)
        )
        return State(mean + jnp.exp(0.5 * (low + gamma * (high - low))) * fresh, x)


# DDPM's variances (Ho et al. 2020, section 3.2) as gamma.
VARIANCES = {"fixed_small": 0.0, "fixed_large": 1.0}


def ddpm(variance: str = "fixed_small") -> Ancestral:
    """DDPM's sampler: `Ancestral` with the variance named as Ho et al. 2020 do.

    "fixed_small" is the posterior's, right for data without spread; "fixed_large" is
    beta, right for data like N(0, I). Where the network predicts a variance, that one
    is taken ("learned_range"), whatever this says.

    Raises:
      ValueError: for another name.
    """
    if variance not in VARIANCES:
        raise ValueError(
            f"ddpm: variance must be one of {sorted(VARIANCES)}, got {variance!r}; a "
            "learned one is taken wherever the network has it."
        )
    return Ancestral(gamma=VARIANCES[variance])
