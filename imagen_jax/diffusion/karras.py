"""Solvers of the probability-flow ODE in Karras' variables: Euler and Heun, with churn.

With kappa = sigma / alpha, the noise-to-signal ratio that Karras et al. 2022 call
sigma, z / alpha moves along d(z / alpha) / d kappa = eps, whatever alpha is.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from imagen_jax import pytrees
from imagen_jax.diffusion import noise, schedules, solvers
from imagen_jax.types import Array, Float, Key

MOST_CHURN = 2.0**0.5 - 1.0
# A step to this sigma / alpha or below is the last one, to 0, of Karras et al. 2022:
# an eighth of a step of 8 bits.
CLEAN = 1e-3

Number = float | Float[Array, ""]


@partial(
    pytrees.register_dataclass,
    data_fields=["churn", "s_min", "s_max", "s_noise"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler(solvers.Solver):
    """Euler's method, with churn: lines 4 to 8 of algorithm 2 (Karras et al. 2022).

    Before a step, noise is added until sigma / alpha has grown by 1 + churn. Without
    churn this is DDIM with eta = 0, whose order is 1. A learned variance is not read.

    Attributes:
      churn: what the paper calls S_churn / N, >= 0, traced; values above sqrt(2) - 1
        count as that. (S_churn = 40 in 256 steps is 0.156.)
      s_min: noise is added only where sigma / alpha is at least this, >= 0, traced.
      s_max: and at most this, traced.
      s_noise: standard deviation of the noise that is added, > 0, traced; a little
        above 1 makes up for networks that remove too much.

    Raises:
      ValueError: for a number outside its range.
    """

    churn: Number = 0.0
    s_min: Number = 0.0
    s_max: Number = float("inf")
    s_noise: Number = 1.0

    def __post_init__(self):
        name, top = type(self).__name__, float("inf")
        solvers.require(f"{name}: churn", self.churn, 0.0, top, "0 adds no noise.")
        solvers.require(f"{name}: s_min", self.s_min, 0.0, top, "It is a sigma.")
        solvers.require(f"{name}: s_max", self.s_max, 0.0, top, "It is a sigma.")
        solvers.require(f"{name}: s_noise", self.s_noise, 0.0, top, "1 is usual.")

    def check(self, schedule: schedules.NoiseSchedule) -> None:
        """Churn needs levels between the schedule's own, and must know their alpha.

        Raises:
          ValueError: for churn on a table, or on a schedule that keeps neither the
            variance nor alpha.
        """
        try:
            churn = float(self.churn)
        except jax.errors.ConcretizationTypeError:
            return  # Under jit the number is not known.
        if churn == 0.0:
            return
        name = type(self).__name__
        if isinstance(schedule, schedules.DiscreteSchedule):
            raise ValueError(
                f"{name}: churn = 0 is required with a discrete schedule, as its "
                f"network knows no level between its steps, got {churn}."
            )
        with jax.ensure_compile_time_eval():
            level = schedule(jnp.linspace(0.0, 1.0, 5))
            flat = bool(jnp.all(level.alpha == level.alpha[0]))
            if not flat and not noise.is_variance_preserving(level):
                raise ValueError(
                    f"{name}: churn = 0 is required with {type(schedule).__name__}, "
                    "which keeps neither alpha nor alpha^2 + sigma^2, got "
                    f"{churn}."
                )

    def update(
        self,
        keys: Key[Array, " B"],
        state: solvers.State,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> solvers.State:
        """One step from level t to level s; `keys` are for the churn."""
        z, level = self.churned(keys, state.z, level_t, level_s)
        x, eps, _ = denoise(z, level)
        # alpha_s (z / alpha + (kappa_s - kappa) eps), without the quotient, which is
        # large where alpha is small.
        _, alpha_s, sigma_s = noise.broadcast(level_s, z)
        return solvers.State(alpha_s * x + sigma_s * eps, x)

    def churned(
        self,
        keys: Key[Array, " B"],
        z: Float[Array, "B *data"],
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> tuple[Float[Array, "B *data"], noise.NoiseLevel]:
        """z with noise added, and its level (algorithm 2, lines 4 to 6)."""
        kappa = jnp.exp(-0.5 * level_t.logsnr)
        inside = (kappa >= self.s_min) & (kappa <= self.s_max)
        gamma = jnp.where(inside, jnp.minimum(self.churn, MOST_CHURN), 0.0)
        logsnr = level_t.logsnr - 2.0 * jnp.log1p(gamma)
        # Of alpha and alpha^2 + sigma^2, that is kept which the schedule keeps.
        shrink = jnp.sqrt((1.0 + jnp.square(kappa)) / (1.0 + jnp.exp(-logsnr)))
        shrink = jnp.where(level_t.alpha == level_s.alpha, 1.0, shrink)
        level = noise.NoiseLevel(
            logsnr,
            level_t.alpha * shrink,
            level_t.sigma * shrink * (1.0 + gamma),
        )
        std = level_t.sigma * shrink * jnp.sqrt(gamma * (2.0 + gamma)) * self.s_noise
        fresh = noise.normal(keys, z.shape)
        return noise.expand(shrink, z) * z + noise.expand(std, z) * fresh, level


@partial(
    pytrees.register_dataclass,
    data_fields=["churn", "s_min", "s_max", "s_noise"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Heun(Euler):
    """Heun's method, of order 2: algorithm 2 of Karras et al. 2022.

    Euler's step, then the same step with the mean of the slopes at its two ends: two
    calls. One call in a step to sigma / alpha <= `CLEAN`, as in the paper's last one,
    and in a step of no length.

    Attributes:
      churn: as in Euler.
      s_min: as in Euler.
      s_max: as in Euler.
      s_noise: as in Euler.
    """

    @property
    def calls(self) -> int:
        """Of the network in each step, at most."""
        return 2

    def update(
        self,
        keys: Key[Array, " B"],
        state: solvers.State,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> solvers.State:
        """One step from level t to level s; `keys` are for the churn."""
        z, level = self.churned(keys, state.z, level_t, level_s)
        x, eps, _ = denoise(z, level)
        _, alpha_s, sigma_s = noise.broadcast(level_s, z)
        ahead = alpha_s * x + sigma_s * eps
        # alpha_s (kappa_s - kappa), the length of the step in z.
        length = level_s.sigma - level_s.alpha * jnp.exp(-0.5 * level.logsnr)

        def corrected():
            slope = denoise(ahead, level_s).eps
            return ahead + 0.5 * noise.expand(length, z) * (slope - eps)

        last = (level_s.sigma <= CLEAN * level_s.alpha) | (
            level_s.logsnr <= level_t.logsnr
        )
        return solvers.State(lax.cond(jnp.all(last), lambda: ahead, corrected), x)
