"""From noise to a picture: a grid of times and one compiled loop over it."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imagen_jax import pytrees
from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import grids, noise, prediction, schedules, solvers
from imagen_jax.types import Array, Float, Key


@partial(
    pytrees.register_dataclass,
    data_fields=["solver"],
    meta_fields=["schedule", "steps", "grid"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """N steps on a grid of times from `start` to 0 (Saharia et al. 2022, appendix A).

    The last step's prediction of x is the picture, so that N steps are N calls of a
    one-call solver. A registered pytree: the solver's numbers are leaves, the schedule
    and the number of steps are static.

    All randomness comes from `keys`, one per example; step i uses fold_in(key, i). The
    same key gives the same picture at any batch size.

    Attributes:
      schedule: noise level as a function of t; must be hashable.
      solver: how one step is made.
      steps: number of steps; each is `solver.calls` calls of the network.
      grid: their times, static; by default uniform in t.

    Raises:
      ValueError: if steps < 1.
    """

    schedule: schedules.NoiseSchedule
    solver: solvers.Solver
    # Paper silent: the number of steps at each stage.
    steps: int = 256
    grid: grids.Grid = grids.UNIFORM

    def __post_init__(self):
        if isinstance(self.steps, int) and self.steps < 1:
            raise ValueError(f"Sampler: steps must be >= 1, got {self.steps}.")

    def levels(
        self, start: float | Float[Array, ""] = 1.0
    ) -> tuple[noise.NoiseLevel, noise.NoiseLevel]:
        """The levels (t, s) before and after each step, fields of shape [N].

        The first one is where z begins, which may be less noisy than t = `start`.
        """
        grid = self.schedule(self.grid(self.schedule, self.steps, start))
        return jax.tree.map(lambda a: a[:-1], grid), jax.tree.map(lambda a: a[1:], grid)

    def prior(
        self, keys: Key[Array, " B"], shape: tuple[int, ...]
    ) -> Float[Array, "B *data"]:
        """z at the first level for examples of `shape`, of variance alpha^2 + sigma^2.

        That is N(0, I) for variance-preserving schedules and, for exploding ones, the
        marginal of data with unit variance.
        """
        _, alpha, sigma = jax.tree.map(lambda a: a[0], self.levels()[0])
        width = jnp.sqrt(jnp.square(alpha) + jnp.square(sigma))
        return width * noise.normal(keys, (keys.shape[0], *shape))

    def init(self, z: Float[Array, "B *data"]) -> Any:
        """The solver's state before the first step."""
        return self.solver.init(z)

    def check(self) -> None:
        """Raise a ValueError for a solver, grid and schedule that do not go together.

        Not done at construction: JAX builds pytrees with placeholders for leaves.
        """
        self.solver.check(self.schedule)
        with jax.ensure_compile_time_eval():
            levels = jax.tree.map(
                lambda a, b: np.append(a, b[-1]), *map(jax.device_get, self.levels())
            )
        if not all(np.all(np.isfinite(a)) for a in levels) or levels.alpha.min() <= 0:
            raise ValueError(
                "Sampler: finite levels with alpha > 0 are required, got log-SNR from "
                f"{levels.logsnr[0]} to {levels.logsnr[-1]} with the grid "
                f"{self.grid.name!r}; cut {type(self.schedule).__name__} at its ends."
            )
        if np.any(np.diff(levels.logsnr) < 0.0):
            raise ValueError(
                f"Sampler: {type(self.schedule).__name__} must have a log-SNR that "
                "falls with t, got one that rises."
            )

    def advance(
        self,
        keys: Key[Array, " B"],
        denoiser: prediction.Denoiser,
        state: Any,
        cond: Conditioning,
        *,
        first: int | Array,
        count: int,
        start: float | Float[Array, ""] = 1.0,
    ) -> Any:
        """Steps first .. first + count - 1, as one `lax.scan`.

        Calling it again with its own result continues the run, exactly as one longer
        call would: for progress, frames and cancelling without host callbacks.

        Args:
          keys: the same at every call.
          denoiser: (z, level, cond) -> Prediction.
          state: from `init` or from the previous call.
          cond: conditions of the batch.
          first: index of the first step, may be traced.
          count: number of steps, static.
          start: t at which the whole run begins, the same at every call.

        Raises:
          ValueError: if count is not in [1, steps], or first + count passes the end.
        """
        self._check_slice(first, count)
        indices = first + jnp.arange(count, dtype=jnp.int32)
        # The barrier keeps the compiler from recomputing the table differently in
        # programs of different length: slices and a whole run agree to the bit.
        table = lax.optimization_barrier(self.levels(start))
        rows = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, first, count), table)

        def step(state, row):
            index, levels = row
            level_t, level_s = jax.tree.map(
                lambda a: jnp.broadcast_to(a, keys.shape), levels
            )
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, index)
            denoise = partial(_with_condition, denoiser, cond)
            return self.solver.update(step_keys, state, denoise, level_t, level_s), None

        state, _ = lax.scan(step, state, (indices, rows))
        return state

    def __call__(
        self,
        keys: Key[Array, " B"],
        denoiser: prediction.Denoiser,
        z: Float[Array, "B *data"],
        cond: Conditioning,
        start: float | Float[Array, ""] = 1.0,
    ) -> Float[Array, "B *data"]:
        """The picture x that begins as z at t = start (SDEdit: start < 1)."""
        state = self.advance(
            keys, denoiser, self.init(z), cond, first=0, count=self.steps, start=start
        )
        return state.x

    def with_frames(
        self,
        keys: Key[Array, " B"],
        denoiser: prediction.Denoiser,
        z: Float[Array, "B *data"],
        cond: Conditioning,
        *,
        every: int,
        start: float | Float[Array, ""] = 1.0,
    ) -> tuple[Float[Array, "B *data"], Float[Array, "F B *data"]]:
        """As `__call__`, with the predicted x after every `every` steps.

        The last of the steps / every frames is the picture itself.

        Raises:
          ValueError: if `every` does not divide the number of steps.
        """
        if every < 1 or self.steps % every:
            raise ValueError(
                f"Sampler: every must divide steps = {self.steps}, got {every}."
            )

        def chunk(state, first):
            state = self.advance(
                keys, denoiser, state, cond, first=first, count=every, start=start
            )
            return state, state.x

        firsts = jnp.arange(0, self.steps, every, dtype=jnp.int32)
        state, frames = lax.scan(chunk, self.init(z), firsts)
        return state.x, frames

    def _check_slice(self, first: int | Array, count: int) -> None:
        end = first + count if isinstance(first, int) else count
        if count < 1 or end > self.steps:
            raise ValueError(
                f"Sampler: a slice within {self.steps} steps is required, got "
                f"first {first}, count {count}."
            )


def _with_condition(denoiser, cond, z, level):
    return denoiser(z, level, cond)
