"""Solvers with history: DPM-Solver++ 2M, its SDE, and UniPC. One call a step.

They take x as a function of half the log-SNR, which the papers call lambda; h is the
length of a step in it. In that variable the probability-flow ODE is linear but for x:

  z_s = (sigma_s / sigma_t) z_t + alpha_s int_0^h e^(u - h) x(lambda_t + u) du
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp

from imagen_jax import pytrees
from imagen_jax.diffusion import noise, process, solvers
from imagen_jax.types import Array, Float, Int, Key

ORDERS = (1, 2, 3)
VARIANTS = ("bh1", "bh2")


class TwoStepState(NamedTuple):
    """What DPM-Solver++ 2M carries.

    Attributes:
      z: the noisy picture at the present level.
      x: the last predicted picture.
      gained: the log-SNR gained by the last step; 0 stands for no history.
    """

    z: Float[Array, "B *data"]
    x: Float[Array, "B *data"]
    gained: Float[Array, " B"]


def _begin(z: Array) -> TwoStepState:
    z = z.astype(jnp.float32)
    return TwoStepState(z, jnp.zeros_like(z), jnp.zeros(z.shape[:1], jnp.float32))


def _extrapolated(
    state: TwoStepState, x: Array, gained: Float[Array, " B"]
) -> Float[Array, "B *data"]:
    """x in the middle of the step, by the straight line through the last two."""
    had = state.gained > 0.0
    ratio = jnp.where(had, gained / jnp.where(had, state.gained, 1.0), 0.0)
    return x + noise.expand(0.5 * ratio, x) * (x - state.x)


@partial(pytrees.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMpp2M(solvers.Solver):
    """DPM-Solver++ 2M, of order 2 (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    z_s = (sigma_s / sigma_t) z_t - alpha_s (e^-h - 1) D, where D extrapolates x from
    the last two steps to the middle of this one. The first step, and one after a step
    of no length, is DDIM's. A learned variance is not read.
    """

    def init(self, z: Float[Array, "B *data"]) -> TwoStepState:
        """The state before the first step."""
        return _begin(z)

    def update(
        self,
        keys: Key[Array, " B"],
        state: TwoStepState,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> TwoStepState:
        """One step from level t to level s; `keys` are not used."""
        x = denoise(state.z, level_t).x
        gained = level_s.logsnr - level_t.logsnr
        keep = noise.expand(level_s.sigma / level_t.sigma, x)
        take = noise.expand(-level_s.alpha * jnp.expm1(-0.5 * gained), x)
        z = keep * state.z + take * _extrapolated(state, x, gained)
        return TwoStepState(z, x, gained)


@partial(pytrees.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMpp2MSDE(solvers.Solver):
    """SDE-DPM-Solver++ 2M (Lu et al. 2022, section 5): 2M with renewed noise.

    A draw of the posterior q(z_s | z_t, x) with the D of `DPMpp2M` for x; of weak order
    1, with a smaller error than `Ancestral` with gamma = 0, its first step. A learned
    variance is not read.
    """

    def init(self, z: Float[Array, "B *data"]) -> TwoStepState:
        """The state before the first step."""
        return _begin(z)

    def update(
        self,
        keys: Key[Array, " B"],
        state: TwoStepState,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> TwoStepState:
        """One step from level t to level s, with fresh noise from `keys`."""
        x = denoise(state.z, level_t).x
        gained = level_s.logsnr - level_t.logsnr
        middle = _extrapolated(state, x, gained)
        mean, variance, _ = process.posterior(state.z, middle, level_t, level_s)
        std = noise.expand(jnp.sqrt(variance), x)
        return TwoStepState(mean + std * noise.normal(keys, x.shape), x, gained)


class UniPCState(NamedTuple):
    """What UniPC carries from the last call to the next.

    Attributes:
      z: the predicted noisy picture at the present level.
      x: the picture predicted in the last call.
      anchor: the corrected z of the last call.
      past: the x of the calls before the last, newest first; order - 1 of them.
      logsnr: of the last call and of those before it, newest first.
      sigma: of the last call.
      order: of the last step; 0 before the first one.
    """

    z: Float[Array, "B *data"]
    x: Float[Array, "B *data"]
    anchor: Float[Array, "B *data"]
    past: tuple[Float[Array, "B *data"], ...]
    logsnr: Float[Array, "B orders"]
    sigma: Float[Array, " B"]
    order: Int[Array, " B"]


@partial(pytrees.register_dataclass, data_fields=[], meta_fields=["order", "variant"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class UniPC(solvers.Solver):
    """UniPC in x-prediction (Zhao et al. 2023, arXiv 2302.04867).

    A predictor of order p from the last p calls (UniP), and a corrector that takes the
    next step's call to bring the z it started from to order p + 1 (UniC): one call a
    step. The first steps have the order that their history allows, and so has one after
    a step of no length; the last one needs none, as its z is not used. A learned
    variance is not read.

    Attributes:
      order: p, 1 to 3, static; the method with its corrector is of order p + 1.
      variant: B(h) of the paper, static: "bh1" is h, "bh2" is e^h - 1.

    Raises:
      ValueError: for another order or variant.
    """

    order: int = 2
    variant: str = "bh2"

    def __post_init__(self):
        if self.order not in ORDERS:
            raise ValueError(f"UniPC: order must be one of {ORDERS}, got {self.order}.")
        if self.variant not in VARIANTS:
            raise ValueError(
                f"UniPC: variant must be one of {VARIANTS}, got {self.variant!r}."
            )

    def init(self, z: Float[Array, "B *data"]) -> UniPCState:
        """The state before the first step."""
        z = z.astype(jnp.float32)
        batch, zeros = z.shape[0], jnp.zeros_like(z)
        return UniPCState(
            z=z,
            x=zeros,
            anchor=zeros,
            past=(zeros,) * (self.order - 1),
            logsnr=jnp.zeros((batch, self.order), jnp.float32),
            sigma=jnp.ones(batch, jnp.float32),
            order=jnp.zeros(batch, jnp.int32),
        )

    def update(
        self,
        keys: Key[Array, " B"],
        state: UniPCState,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> UniPCState:
        """One step from level t to level s; `keys` are not used."""
        x = denoise(state.z, level_t).x
        begun = state.order > 0
        corrected = self._step(state, level_t, x)
        told = noise.expand(begun.astype(jnp.float32), x) > 0.0
        anchor = jnp.where(told, corrected, state.z)
        # Calls at the same level make no history: their difference has no slope.
        moved = begun & (level_t.logsnr > state.logsnr[:, 0])
        order = jnp.where(moved, jnp.minimum(state.order + 1, self.order), 1)
        logsnr = jnp.concatenate([level_t.logsnr[:, None], state.logsnr[:, :-1]], 1)
        past = (state.x, *state.past)[: self.order - 1]
        state = UniPCState(state.z, x, anchor, past, logsnr, level_t.sigma, order)
        return state._replace(z=self._step(state, level_s, None))

    def _step(
        self, state: UniPCState, level: noise.NoiseLevel, x: Array | None
    ) -> Float[Array, "B *data"]:
        """z at a level from that of the last call; with x there, the corrector's."""
        h = 0.5 * (level.logsnr - state.logsnr[:, 0])
        span = jnp.expm1(-h) if self.variant == "bh2" else -h
        slopes = [past - state.x for past in state.past]
        if x is not None:
            slopes.append(x - state.x)
        z = noise.expand(level.sigma / state.sigma, state.z) * state.anchor
        change = noise.expand(jnp.expm1(-h), state.z) * state.x
        for weight, slope in zip(self._weights(state, h, x), slopes, strict=True):
            change += noise.expand(span * weight, state.z) * slope
        return z - noise.expand(level.alpha, state.z) * change

    def _weights(
        self, state: UniPCState, h: Float[Array, " B"], x: Array | None
    ) -> list[Float[Array, " B"]]:
        """Of each difference from the last x: of the past ones, then of the next."""
        there = x is not None
        apart = 0.5 * (state.logsnr[:, 1:] - state.logsnr[:, :1])
        apart = apart / jnp.where(h > 0.0, h, 1.0)[:, None]
        weights = [jnp.zeros_like(h)] * (self.order - 1 + there)
        for order in range(1, self.order + 1):
            chosen = state.order == order
            # Where there is less history, any numbers will do that are not equal.
            nodes = [jnp.where(chosen, apart[:, k], -1.0 - k) for k in range(order - 1)]
            found = self._solve(nodes, h, there)
            for k, node in enumerate(nodes):
                weights[k] = jnp.where(chosen, found[k] / node, weights[k])
            if there:
                weights[-1] = jnp.where(chosen, found[-1], weights[-1])
        return weights

    def _solve(
        self, nodes: list[Float[Array, " B"]], h: Float[Array, " B"], there: bool
    ) -> list[Float[Array, " B"]]:
        """rho, of which the paper sets a single one to 1 / 2."""
        if there:
            nodes = [*nodes, jnp.ones_like(h)]
        if len(nodes) == 1:
            return [jnp.full_like(h, 0.5)]
        scale = phi(1, h) if self.variant == "bh2" else jnp.ones_like(h)
        moments = [
            math.factorial(i) * phi(i + 1, h) / scale for i in range(1, len(nodes) + 1)
        ]
        return vandermonde(nodes, moments)


def phi(m: int, h: Float[Array, " B"]) -> Float[Array, " B"]:
    """sum_j (-h)^j / (j + m)!, for h >= 0 and m >= 1: (e^-h - 1) / -h for m = 1."""
    y = -h
    series = jnp.zeros_like(y)
    for j in range(12, -1, -1):
        series = series * y + 1.0 / math.factorial(j + m)
    # Beyond 1 the sum would cancel; below, the quotients would.
    far = jnp.minimum(y, -1.0)
    quotient = jnp.exp(far)
    for k in range(m):
        quotient = (quotient - 1.0 / math.factorial(k)) / far
    return jnp.where(y > -1.0, series, quotient)


def vandermonde(
    nodes: Sequence[Float[Array, " B"]], moments: Sequence[Float[Array, " B"]]
) -> list[Float[Array, " B"]]:
    """The weights with sum_k weight_k node_k^i = moment_i, i = 0, 1, ...

    Each is the functional of the moments applied to Lagrange's polynomial of its node,
    which loses no digits where the nodes are of unlike sizes.
    """
    weights = []
    for k, node in enumerate(nodes):
        powers, scale = [jnp.ones_like(node)], jnp.ones_like(node)
        for other in (*nodes[:k], *nodes[k + 1 :]):
            shifted = [jnp.zeros_like(node), *powers]
            scaled = [*(other * p for p in powers), jnp.zeros_like(node)]
            powers = [a - b for a, b in zip(shifted, scaled, strict=True)]
            scale = scale * (node - other)
        weights.append(sum(p * m for p, m in zip(powers, moments, strict=True)) / scale)
    return weights
