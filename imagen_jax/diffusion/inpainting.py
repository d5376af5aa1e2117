"""Drawing beside pixels that are known: replacement, and RePaint's resampling."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from imagen_jax import pytrees
from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import noise, prediction, process, schedules, solvers
from imagen_jax.types import Array, Float, Key


def replaced(
    denoiser: prediction.Denoiser,
    picture: Float[Array, "B *data"],
    mask: Float[Array, "B ..."],
) -> prediction.Denoiser:
    """x = mask x + (1 - mask) picture, and eps recomputed from z and this x.

    Song et al. 2021, appendix I.2, and GLIDE's sampling (Nichol et al. 2021) put the
    known pixels, noised to the level, into z. Here they stand in the prediction, and z
    follows: with x known, a solver's step from level t to s turns
    z_t ~ q(z_t | picture) into z_s ~ q(z_s | picture), with new noise where the solver
    renews it and along one path where it does not. So every solver works, those with
    history too, if the drawing begins at z ~ q(z | picture). Goes around guidance and
    thresholding: the last prediction, which is the picture drawn, holds the known
    pixels to the bit.

    Args:
      denoiser: (z, level, cond) -> Prediction.
      picture: in [-1, 1]; counts where the mask is below 1.
      mask: in [0, 1], broadcastable to the picture: 1 where it is drawn anew, 0 where
        it is known, mixed in between.
    """

    def filled(z, level, cond: Conditioning):
        found = denoiser(z, level, cond)
        x = jnp.where(mask > 0.0, mask * found.x + (1.0 - mask) * picture, picture)
        return prediction.from_x(x, z, level)._replace(gamma=found.gamma)

    return filled


@partial(pytrees.register_dataclass, data_fields=["solver", "times"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampled(solvers.Solver):
    """Every step of a solver made several times, going back between them.

    Algorithm 1 of Lugmayr et al. 2022 (RePaint): from level t to s, back to t by new
    noise, and to s again, so that what is drawn comes to agree with the known pixels.
    Replacement alone lets the two meet only once at each level.

    A jump is one step of the grid. RePaint's longer jumps, 10 steps of 250, go 4 % of
    the way back; so does one step of a grid of 25. A jump longer than a step of the
    grid in use is not supported: it would need a solver that knows the grid.

    After a jump back what a solver remembers of earlier steps belongs to another path,
    so each turn begins anew, and a solver of several steps has order 1 here.

    Attributes:
      solver: makes the steps.
      times: how often every step is made, r in the paper, at least 1; may be traced. A
        step costs so many of the solver's.
    """

    solver: solvers.Solver
    # RePaint's r at 250 steps.
    times: int | Array = 10

    @property
    def calls(self) -> int:
        """Of the network in each step; `times` must be concrete."""
        return int(self.times) * self.solver.calls

    def check(self, schedule: schedules.NoiseSchedule) -> None:
        """As the solver's own."""
        self.solver.check(schedule)

    def init(self, z: Float[Array, "B *data"]) -> Any:
        """The solver's state before the first step."""
        return self.solver.init(z)

    def update(
        self,
        keys: Key[Array, " B"],
        state: Any,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> Any:
        """`times` steps from level t to level s."""

        def once(turn, carry):
            z_t, _ = carry
            fold = jax.vmap(jax.random.fold_in, (0, None))
            stepped = self.solver.update(
                fold(keys, 2 * turn), self.solver.init(z_t), denoise, level_t, level_s
            )
            again = process.diffuse_further(
                fold(keys, 2 * turn + 1), stepped.z, level_s, level_t
            )
            return again, stepped

        return lax.fori_loop(0, self.times, once, (state.z, state))[1]
