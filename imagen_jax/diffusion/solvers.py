"""Solvers: from a noisier level t to a less noisy level s.

A solver is an `init` and an `update` around its own state, so that methods of one
call, of two calls and with history fit the same loop.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from imagen_jax.diffusion import noise, prediction, process
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
    """A registered pytree: numbers that may change without recompiling are leaves."""

    def init(self, z: Float[Array, "B *data"]) -> Any:
        """The state before the first step."""
        ...

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


def _start(z: Array) -> State:
    z = z.astype(jnp.float32)
    return State(z, jnp.zeros_like(z))


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIM:
    """z_s = alpha_s x + sigma_s eps, without noise (Song, Meng & Ermon 2020).

    With eps = (z_t - alpha_t x) / sigma_t this is Saharia et al. 2022, appendix A.
    """

    def init(self, z: Float[Array, "B *data"]) -> State:
        """The state before the first step."""
        return _start(z)

    def update(
        self,
        keys: Key[Array, " B"],
        state: State,
        denoise: Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> State:
        """One step from level t to level s; `keys` are not used."""
        x, eps, _ = denoise(state.z, level_t)
        _, alpha_s, sigma_s = noise.broadcast(level_s, x)
        return State(alpha_s * x + sigma_s * eps, x)


@partial(jax.tree_util.register_dataclass, data_fields=["gamma"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral:
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
        if isinstance(self.gamma, int | float) and not 0.0 <= self.gamma <= 1.0:
            raise ValueError(
                f"Ancestral: gamma must be in [0, 1], got {self.gamma}. "
                "0 is the posterior's own variance, 1 the forward process's."
            )

    def init(self, z: Float[Array, "B *data"]) -> State:
        """The state before the first step."""
        return _start(z)

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
