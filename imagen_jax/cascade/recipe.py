"""How to draw from one stage: the settings that a person turns."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax

from imagen_jax.diffusion import grids, langevin, sde, solvers, thresholding
from imagen_jax.types import Array

THRESHOLDS = ("dynamic", "static", "none")
SOLVERS = {
    "ancestral": solvers.Ancestral,
    "annealed_langevin": langevin.AnnealedLangevin,
    "ddim": solvers.DDIM,
    "euler_maruyama": sde.EulerMaruyama,
    "predictor_corrector": langevin.predictor_corrector,
    "probability_flow": sde.ProbabilityFlow,
    "reverse_diffusion": sde.ReverseDiffusion,
}


def make_solver(name: str, **settings: float) -> solvers.Solver:
    """A solver by name: "ddim", or "ancestral" with its `gamma` in [0, 1].

    Raises:
      ValueError: for another name.
    """
    if name not in SOLVERS:
        raise ValueError(
            f"sampling: solver must be one of {sorted(SOLVERS)}, got {name!r}."
        )
    return SOLVERS[name](**settings)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["solver", "w", "percentile", "threshold_cap", "aug_level"],
    meta_fields=["steps", "threshold", "grid"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingRecipe:
    """A pytree: a new value of a traced field never recompiles the sampler.

    Attributes:
      solver: the update rule, its parameters traced.
      steps: network calls per picture, static.
      threshold: "dynamic", "static" or "none" (Saharia et al. 2022, section 2.3).
      w: the guidance weight, traced; 1 is the conditional model. None switches
        guidance off statically, which halves the cost.
      percentile: of dynamic thresholding, in (0, 1], traced.
      threshold_cap: of dynamic thresholding, >= 1, traced; None is none (the paper).
      aug_level: noise put on the low-resolution input, in [0, 1], traced.
      grid: at which times the network is called, static.
    """

    solver: solvers.Solver
    steps: int
    threshold: str = "dynamic"
    w: float | Array | None = 1.0
    percentile: float | Array = 0.995
    threshold_cap: float | Array | None = None
    aug_level: float | Array = 0.0
    grid: grids.Grid = grids.UNIFORM

    def check(self) -> None:
        """Raise a ValueError for settings that cannot be drawn with.

        Not done at construction: JAX builds pytrees with placeholders for leaves.
        """
        if self.steps < 1:
            raise ValueError(f"SamplingRecipe: steps must be >= 1, got {self.steps}.")
        if self.threshold not in THRESHOLDS:
            raise ValueError(
                f"SamplingRecipe: threshold must be one of {THRESHOLDS}, "
                f"got {self.threshold!r}."
            )
        for name, low, high in (("percentile", 0.0, 1.0), ("aug_level", 0.0, 1.0)):
            value = getattr(self, name)
            if not low <= float(value) <= high:
                raise ValueError(
                    f"SamplingRecipe: {name} must be in [{low}, {high}], got {value}."
                )
        if self.threshold_cap is not None and float(self.threshold_cap) < 1.0:
            raise ValueError(
                f"SamplingRecipe: threshold_cap must be >= 1, got {self.threshold_cap}."
            )
        if self.grid.length not in (None, self.steps):
            raise ValueError(
                f"SamplingRecipe: the grid has {self.grid.length} steps, got steps "
                f"{self.steps}."
            )

    def clip(self) -> Callable[[Array], Array]:
        """The thresholding of x that this recipe asks for."""
        if self.threshold == "dynamic":
            return partial(
                thresholding.dynamic,
                percentile=self.percentile,
                cap=self.threshold_cap,
            )
        return {"static": thresholding.static, "none": thresholding.none}[
            self.threshold
        ]
