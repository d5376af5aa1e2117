"""How to draw from one stage: the settings that a person turns."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from imagen_jax import pytrees
from imagen_jax.diffusion import (
    grids,
    guidance_weights,
    karras,
    langevin,
    multistep,
    sde,
    solvers,
    thresholding,
)
from imagen_jax.types import Array

THRESHOLDS = ("dynamic", "static", "none")
# What configs and commands call them.
SOLVERS: dict[str, Callable[..., solvers.Solver]] = {
    "ancestral": solvers.Ancestral,
    "annealed_langevin": langevin.AnnealedLangevin,
    "ddim": solvers.DDIM,
    "ddpm": solvers.ddpm,
    "dpmpp_2m": multistep.DPMpp2M,
    "dpmpp_2m_sde": multistep.DPMpp2MSDE,
    "euler": karras.Euler,
    "euler_maruyama": sde.EulerMaruyama,
    "heun": karras.Heun,
    "predictor_corrector": langevin.predictor_corrector,
    "probability_flow": sde.ProbabilityFlow,
    "reverse_diffusion": sde.ReverseDiffusion,
    "unipc": multistep.UniPC,
}
# Settings that say how a stage is guided, where it is.
OF_GUIDANCE = (
    *("guidance_schedule", "guidance_low", "guidance_high"),
    *("guidance_rescale", "apg_eta", "apg_norm"),
)


def make_solver(name: str, **settings: Any) -> solvers.Solver:
    """A solver by its name in `SOLVERS`, with its fields as `settings`.

    Raises:
      ValueError: for another name, or settings that the solver lacks.
    """
    if name not in SOLVERS:
        raise ValueError(
            f"sampling: solver must be one of {sorted(SOLVERS)}, got {name!r}."
        )
    known = sorted(inspect.signature(SOLVERS[name]).parameters)
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(
            f"sampling.solver: {name!r} must have settings of {known}, got {unknown}."
        )
    return SOLVERS[name](**settings)


@partial(
    pytrees.register_dataclass,
    data_fields=[
        *("solver", "w", "percentile", "threshold_cap", "aug_level"),
        *("autoguidance", *OF_GUIDANCE),
        *("strength", "resample", "colour_fix"),
    ],
    meta_fields=["steps", "threshold", "grid", "tile", "tile_overlap"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingRecipe:
    """A pytree: a new value of a traced field never recompiles the sampler.

    Attributes:
      solver: the update rule, its parameters traced.
      steps: how many, static; each is `solver.calls` calls of the network.
      threshold: "dynamic", "static" or "none" (Saharia et al. 2022, section 2.3).
      w: the guidance weight, traced; 1 is the conditional model. None switches
        guidance off statically, which halves the cost.
      percentile: of dynamic thresholding, in (0, 1], traced.
      threshold_cap: of dynamic thresholding, >= 1, traced; None is none (the paper).
      aug_level: noise put on the low-resolution input, in [0, 1], traced.
      grid: at which times the network is called, static.
      autoguidance: the weight of leading away from a weaker model, beside w; traced,
        None is off (Karras et al. 2024).
      guidance_schedule: how w changes along the run; its numbers traced.
      guidance_low, guidance_high: guided is only where sigma / alpha is above the one
        and at most the other; traced, None is no bound (Kynkaanniemi et al. 2024).
      guidance_rescale: phi, in [0, 1], traced; None is off (Lin et al. 2023).
      apg_eta, apg_norm: of adaptive projected guidance (Sadat et al. 2024), its eta in
        [0, 1] and its r > 0, traced; None is off.
      strength: t in (0, 1] at which drawing begins from a picture to change, traced; 1
        is pure noise (Meng et al. 2021, SDEdit). All steps are spent below it.
      resample: how often every step is made beside known pixels, traced, RePaint's r;
        None makes each once.
      colour_fix: of super-resolution: width in low-resolution pixels of the colours
        matched to the low-resolution picture (`colour.matched`), traced; None is off.
      tile: side of the tiles in which larger pictures are drawn, static; 0: whole.
      tile_overlap: of neighbouring tiles, a share of their side, static.
    """

    solver: solvers.Solver
    steps: int
    threshold: str = "dynamic"
    w: float | Array | None = 1.0
    percentile: float | Array = 0.995
    threshold_cap: float | Array | None = None
    aug_level: float | Array = 0.0
    grid: grids.Grid = grids.UNIFORM
    autoguidance: float | Array | None = None
    guidance_schedule: guidance_weights.WeightSchedule = guidance_weights.CONSTANT
    guidance_low: float | Array | None = None
    guidance_high: float | Array | None = None
    guidance_rescale: float | Array | None = None
    apg_eta: float | Array | None = None
    apg_norm: float | Array | None = None
    strength: float | Array = 1.0
    resample: int | Array | None = None
    colour_fix: float | Array | None = None
    tile: int = 0
    tile_overlap: float = 0.25

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
        self._check_editing()
        order = getattr(self.solver, "order", 1)
        if self.steps < order:
            raise ValueError(
                f"SamplingRecipe: steps must be >= {order}, the order of "
                f"{type(self.solver).__name__}, got {self.steps}."
            )
        if self.grid.length not in (None, self.steps):
            raise ValueError(
                f"SamplingRecipe: the grid has {self.grid.length} steps, got steps "
                f"{self.steps}."
            )
        self._check_guidance()

    @property
    def guided(self) -> bool:
        """Whether there is any guidance, statically."""
        return self.w is not None or self.autoguidance is not None

    @property
    def interval(self) -> tuple[float | Array, float | Array] | None:
        """Where the guidance is, low < sigma / alpha <= high; None: everywhere."""
        low, high = self.guidance_low, self.guidance_high
        if low is None and high is None:
            return None
        return 0.0 if low is None else low, math.inf if high is None else high

    def _check_guidance(self) -> None:
        for name in ("w", "autoguidance"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(float(value)):
                raise ValueError(
                    f"SamplingRecipe: {name} must be finite, got {value}; 1 is off."
                )
        given = [n for n in OF_GUIDANCE[1:] if getattr(self, n) is not None]
        if given and not self.guided:
            raise ValueError(
                f"SamplingRecipe: {', '.join(given)} of a stage without guidance; give "
                "it a weight w (1 is the conditional model)."
            )
        low, high = (float(bound) for bound in self.interval or (0.0, math.inf))
        if not 0.0 <= low < high:
            raise ValueError(
                "SamplingRecipe: 0 <= guidance_low < guidance_high is required, in "
                f"units of sigma / alpha, got {low} and {high}."
            )
        for name in ("guidance_rescale", "apg_eta"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= float(value) <= 1.0:
                raise ValueError(
                    f"SamplingRecipe: {name} must be in [0, 1], got {value}."
                )
        if self.apg_norm is not None and not float(self.apg_norm) > 0.0:
            raise ValueError(
                f"SamplingRecipe: apg_norm must be > 0, got {self.apg_norm}."
            )
        self._check_schedule()

    def _check_schedule(self) -> None:
        schedule = self.guidance_schedule
        if isinstance(schedule, guidance_weights.Constant):
            return
        if self.w is None:
            raise ValueError(
                f"SamplingRecipe: guidance_schedule {schedule.name} changes the weight "
                "w, got w None; give it one."
            )
        if not all(math.isfinite(float(n)) for n in jax.tree.leaves(schedule)):
            raise ValueError(
                "SamplingRecipe: guidance_schedule must have finite numbers, got "
                f"{schedule}."
            )
        if not isinstance(schedule, guidance_weights.Oscillating):
            return
        if not 0 <= int(schedule.first) < self.steps:
            raise ValueError(
                "SamplingRecipe: an oscillating weight must begin to oscillate at one "
                f"of the {self.steps} steps, got first = {schedule.first}."
            )
        calls = self.solver.calls
        if calls != 1:
            raise ValueError(
                "SamplingRecipe: an oscillating weight alternates between steps, but "
                f"{type(self.solver).__name__} calls the network {calls} times a step, "
                "at levels of two steps; take a solver of one call."
            )

    def _check_editing(self) -> None:
        if not 0.0 < float(self.strength) <= 1.0:
            raise ValueError(
                "SamplingRecipe: strength must be above 0 (the picture as it is) and "
                f"at most 1 (pure noise), got {self.strength}."
            )
        for name, low in (("resample", 1), ("colour_fix", 0), ("tile", 0)):
            value = getattr(self, name)
            if value is not None and float(value) < low:
                raise ValueError(
                    f"SamplingRecipe: {name} must be >= {low}, got {value}."
                )
        if not 0.0 <= self.tile_overlap < 1.0:
            raise ValueError(
                "SamplingRecipe: tile_overlap must be in [0, 1), got "
                f"{self.tile_overlap}."
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
