"""Langevin dynamics at one noise level: correctors, and annealed over all levels."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from imagen_jax import pytrees
from imagen_jax.diffusion import noise, schedules, sde, solvers
from imagen_jax.types import Array, Float, Key

TINY = 1e-20  # a squared norm that may be divided by
_fold = jax.vmap(jax.random.fold_in, (0, None))


@partial(
    pytrees.register_dataclass,
    data_fields=["predictor", "snr"],
    meta_fields=["corrector_steps"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictorCorrector(solvers.Solver):
    """A solver around a solver: Langevin steps at level t, then the predictor's to s.

    Song et al. 2021, algorithms 4 and 5. Each Langevin step is z + e score +
    sqrt(2 e) xi with e = 2 a (snr |xi| / |score|)^2, where a is the step's 1 - beta,
    (alpha_t / alpha_s)^2: 1 for variance-exploding levels. In their order, predictor
    first, the last correction would come after the last prediction, whose x is the
    picture; so here, as in the paper's code, a step begins with the correction.

    Attributes:
      predictor: a solver whose state is `solvers.State`: one with a history of
        predictions would go on from pictures that the corrector has left.
      snr: the signal-to-noise ratio r of a Langevin step, traced. The paper's is 0.16
        for variance-exploding CIFAR-10, 0.075 for LSUN.
      corrector_steps: Langevin steps at each level, static.

    Raises:
      ValueError: if corrector_steps < 1, or snr is a number <= 0.
    """

    predictor: solvers.Solver = dataclasses.field(default_factory=sde.ReverseDiffusion)
    snr: float | Float[Array, ""] = 0.16
    corrector_steps: int = 1

    def __post_init__(self):
        if isinstance(self.corrector_steps, int) and self.corrector_steps < 1:
            raise ValueError(
                "PredictorCorrector: corrector_steps must be >= 1, got "
                f"{self.corrector_steps}. Without any, use the predictor alone."
            )
        if isinstance(self.snr, int | float) and self.snr <= 0.0:
            raise ValueError(f"PredictorCorrector: snr must be > 0, got {self.snr}.")

    @property
    def calls(self) -> int:
        """Network calls a step."""
        return self.predictor.calls + self.corrector_steps

    def check(self, schedule: schedules.NoiseSchedule) -> None:
        """What the predictor asks of the schedule."""
        self.predictor.check(schedule)

    def init(self, z: Float[Array, "B *data"]) -> solvers.State:
        """The predictor's state before the first step.

        Raises:
          ValueError: for a predictor with a history.
        """
        state = self.predictor.init(z)
        if type(state) is not solvers.State:
            raise ValueError(
                "PredictorCorrector: the predictor must not remember earlier "
                f"predictions, got {type(self.predictor).__name__}; use "
                "ReverseDiffusion, Ancestral or another one-step solver."
            )
        return state

    def update(
        self,
        keys: Key[Array, " B"],
        state: solvers.State,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> Any:
        """Corrections at level t, then the predictor's step from t to s."""
        scale = jnp.square(level_t.alpha / level_s.alpha)

        def correct(z, index):
            fresh = noise.normal(_fold(keys, index), z.shape)
            gradient = sde.score(denoise(z, level_t).eps, level_t)
            # Paper silent: it takes both norms over the batch. Here over each example,
            # as pictures of a batch must not depend on each other.
            ratio = _squared_norm(fresh) / jnp.maximum(_squared_norm(gradient), TINY)
            e = noise.expand(2.0 * scale * self.snr**2 * ratio, z)
            return z + e * gradient + jnp.sqrt(2.0 * e) * fresh, None

        indices = 1 + jnp.arange(self.corrector_steps)
        z, _ = lax.scan(correct, state.z, indices)
        return self.predictor.update(
            _fold(keys, 0), state._replace(z=z), denoise, level_t, level_s
        )


# The paper's predictors by name.
PREDICTORS = {
    "ancestral": solvers.Ancestral(gamma=0.0),
    "euler_maruyama": sde.EulerMaruyama(),
    "probability_flow": sde.ProbabilityFlow(),
    "reverse_diffusion": sde.ReverseDiffusion(),
}


def predictor_corrector(
    predictor: str = "reverse_diffusion",
    snr: float | Float[Array, ""] = 0.16,
    corrector_steps: int = 1,
) -> PredictorCorrector:
    """A PredictorCorrector of plain values, the predictor one of `PREDICTORS`.

    Raises:
      ValueError: for another predictor.
    """
    if predictor not in PREDICTORS:
        raise ValueError(
            f"sampling.solver: predictor must be one of {sorted(PREDICTORS)}, got "
            f"{predictor!r}."
        )
    return PredictorCorrector(
        predictor=PREDICTORS[predictor], snr=snr, corrector_steps=corrector_steps
    )


@partial(pytrees.register_dataclass, data_fields=["step"], meta_fields=["repeats"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnealedLangevin(solvers.Solver):
    """Langevin dynamics at each level in turn, with nothing between (SMLD).

    Song & Ermon 2019, algorithm 1: `repeats` steps z + (e / 2) score + sqrt(e) xi with
    e = step sigma^2, then the next level. The step is their epsilon / sigma_L^2, and
    z / alpha, sigma / alpha are their picture and noise, so that other schedules than
    the exploding one run too; neighbouring levels must overlap, or the steps at each
    are too few. The picture is the x of the last step's prediction: Song & Ermon 2020
    denoise at the end likewise.

    Attributes:
      step: of Langevin dynamics as a share of sigma^2, in (0, 4), beyond which it
        diverges; traced.
      repeats: steps at each level, static: calls of the network.

    Raises:
      ValueError: if repeats < 1, or step is a number outside (0, 4).
    """

    # Song & Ermon 2020's for CIFAR-10: epsilon 6.2e-6 (twice that in the convention of
    # 2019), sigma_L = 0.01, 5 repeats at 232 levels.
    step: float | Float[Array, ""] = 0.124
    repeats: int = 5

    def __post_init__(self):
        if isinstance(self.repeats, int) and self.repeats < 1:
            raise ValueError(
                f"AnnealedLangevin: repeats must be >= 1, got {self.repeats}."
            )
        if isinstance(self.step, int | float) and not 0.0 < self.step < 4.0:
            raise ValueError(
                f"AnnealedLangevin: step must be in (0, 4), got {self.step}. It is a "
                "share of sigma^2; 0.1 to 0.2 is usual."
            )

    @property
    def calls(self) -> int:
        """Network calls a step."""
        return self.repeats

    def update(
        self,
        keys: Key[Array, " B"],
        state: solvers.State,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> solvers.State:
        """Langevin steps at level t; z then counts as noisy as level s."""

        def move(state, index):
            x, eps, _ = denoise(state.z, level_t)
            sigma = noise.broadcast(level_t, x).sigma
            fresh = noise.normal(_fold(keys, index), x.shape)
            z = state.z - 0.5 * self.step * sigma * eps
            return solvers.State(z + jnp.sqrt(self.step) * sigma * fresh, x), None

        state, _ = lax.scan(move, state, jnp.arange(self.repeats))
        growth = noise.expand(level_s.alpha / level_t.alpha, state.z)
        return state._replace(z=growth * state.z)


def _squared_norm(a: Float[Array, "B *data"]) -> Float[Array, " B"]:
    return jnp.sum(jnp.square(a), axis=tuple(range(1, a.ndim)))
