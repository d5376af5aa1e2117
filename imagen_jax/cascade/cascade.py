"""The order of stages, and what passes from one to the next."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from imagen_jax.cascade import images, sizes
from imagen_jax.cascade.recipe import SamplingRecipe
from imagen_jax.cascade.request import Request
from imagen_jax.cascade.stage import Stage
from imagen_jax.models import layers
from imagen_jax.types import Array, Float, Key

Size = tuple[int, int]
# Called with (stage, steps done, steps of this stage, the picture as it stands).
Progress = Callable[[Stage, int, int, Array], None]

_stage_keys = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(0, None)))


@partial(jax.jit, static_argnums=(0, 4))
def _start(stage, keys, request, recipe, size):
    state, inputs = stage.start(keys, request, recipe, size)
    return _spread(state, len(keys)), inputs


@partial(jax.jit, static_argnums=(0, 7))
def _advance(stage, keys, params, state, inputs, recipe, first, count):
    state = stage.advance(keys, params, state, inputs, recipe, first, count)
    return _spread(state, len(keys))


def _spread(state: Any, count: int) -> Any:
    """A state with what has a row a picture split over the devices of the batch.

    Left alone, XLA splits the first state otherwise than the next, and the program that
    takes both is compiled twice.
    """

    def one(a):
        rows = a.ndim > 0 and a.shape[0] == count
        return layers.constrain(a, "batch", *[None] * (a.ndim - 1)) if rows else a

    return jax.tree.map(one, state)


def slice_length(steps: int, slices: int = 10) -> int:
    """The largest divisor of `steps` that gives at least `slices` equal slices.

    Slices of one length share one compiled program. Few steps give slices of one.
    """
    limit = max(1, steps // slices)
    return max(n for n in range(1, limit + 1) if steps % n == 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cascade:
    """Stages in order: a base, then super-resolution (Saharia et al. 2022, sec. 2)."""

    stages: tuple[Stage, ...]

    def __post_init__(self):
        """Check that each stage starts where the one before it ended."""
        if not self.stages:
            raise ValueError("Cascade: at least one stage is required, got none.")
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if after.low_resolution != before.resolution:
                raise ValueError(
                    f"Cascade: stage {after.name} must start from "
                    f"{before.resolution} px, got {after.low_resolution}."
                )

    def sample(
        self,
        keys: Key[Array, " B"],
        params: Sequence[Any],
        request: Request,
        recipes: Sequence[SamplingRecipe],
        *,
        progress: Progress | None = None,
    ) -> list[Float[Array, "B H W C"]]:
        """Draw one picture a key through the stages.

        Args:
          keys: one a picture, so that a picture does not depend on its batch.
          params: one tree a stage, indexed only when its stage begins.
          request: what to draw, and how large. With a low-resolution picture, drawing
            begins at the stage that takes its size, and the earlier stages are skipped.
          recipes: one a stage.
          progress: called after every slice of steps.

        Returns:
          The pictures of every stage drawn, in [-1, 1], smallest first.

        Raises:
          ValueError: for a size that a network does not take, a low-resolution picture
            that no stage takes, or settings that cannot be combined.
        """
        first, shapes = self.plan(request)
        for i, size in enumerate(shapes, first):
            self.check(i, recipes[i], request, size)
        drawn = []
        for i, size in enumerate(shapes, first):
            x = self.draw(
                i, keys, params[i], request, recipes[i], size=size, progress=progress
            )
            # The next stage sees what a file of this picture would hold.
            drawn.append(images.to_float(images.to_uint8(x)))
            request = dataclasses.replace(request, low_res=drawn[-1])
        return drawn

    def draw(
        self,
        i: int,
        keys: Key[Array, " B"],
        params: Any,
        request: Request,
        recipe: SamplingRecipe,
        *,
        size: Size | None = None,
        slices: int = 10,
        progress: Progress | None = None,
    ) -> Float[Array, "B H W C"]:
        """Draw with stage `i` alone.

        Args:
          i: index of the stage.
          keys: one a picture, the same at all stages.
          params: the stage's tree.
          request: what to draw, with the low-resolution pictures that it starts from.
          recipe: the stage's.
          size: (height, width); by default what the stage makes of its low-resolution
            picture, or was made for.
          slices: calls of the compiled program, at least, where there are that many
            steps.
          progress: called after every slice of steps.

        Returns:
          The pictures as the last step predicts them, not clipped.
        """
        stage = self.stages[i]
        if size is None:
            size = (stage.resolution, stage.resolution)
            if request.low_res is not None and stage.low_resolution is not None:
                ratio = stage.resolution // stage.low_resolution
                height, width = request.low_res.shape[1:3]
                size = (height * ratio, width * ratio)
        stage_keys = _stage_keys(keys, i)
        state, inputs = _start(stage, stage_keys, request, recipe, size)
        count = slice_length(recipe.steps, slices)
        for step in range(0, recipe.steps, count):
            state = _advance(
                stage, stage_keys, params, state, inputs, recipe, step, count
            )
            if progress is not None:
                progress(stage, step + count, recipe.steps, state.x)
        return inputs.kept(state.x)

    def check(
        self, i: int, recipe: SamplingRecipe, request: Request, size: Size
    ) -> None:
        """Refuse, before anything is drawn, what stage `i` cannot draw.

        Args:
          i: index of the stage.
          recipe: the stage's.
          request: what to draw; its text does not count.
          size: (height, width) of the stage's pictures.

        Raises:
          ValueError: naming the setting.
        """
        stage, edit = self.stages[i], request.edit
        recipe.check()
        stage.sampler(recipe).check()
        sizes.check_tile(stage, recipe.tile, size)
        if edit is None and float(recipe.strength) < 1.0:
            raise ValueError(
                f"Stage {stage.name}: strength {recipe.strength} needs a picture to "
                "begin from, got none; give one, or strength 1."
            )
        if recipe.resample is not None and (edit is None or edit.mask is None):
            raise ValueError(
                f"Stage {stage.name}: resample = {recipe.resample} is for known "
                "pixels, got no mask; leave it out."
            )

    def plan(self, request: Request) -> tuple[int, tuple[Size, ...]]:
        """Where drawing begins, and the (height, width) of each stage from there on.

        Raises:
          ValueError: for a low-resolution picture that no stage takes, or a size that
            a network does not take.
        """
        last = self.stages[-1].resolution
        size = request.size or (last, last)
        if request.low_res is None:
            return 0, sizes.of_stages(self.stages, size)
        given, wanted = request.low_res.shape[1:3], []
        for i, stage in enumerate(self.stages):
            if stage.low_resolution is None:
                continue
            low = tuple(side * stage.low_resolution / last for side in size)
            if low == given:
                return i, sizes.of_stages(self.stages[i:], size)
            wanted.append(" x ".join(f"{side:g}" for side in low))
        raise ValueError(
            f"Cascade: low_res must be one of {wanted} px for pictures of "
            f"{size[0]} x {size[1]}, got {given[0]} x {given[1]}; resize it, or give "
            "another size."
        )

    def sizes_after(self, i: int, size: Size) -> tuple[Size, ...]:
        """The (height, width) of stage `i`, whose pictures are of `size`, and the next.

        Raises:
          ValueError: for a size that a network after stage `i` does not take.
        """
        ratio = self.stages[-1].resolution // self.stages[i].resolution
        after = self.stages[i + 1 :]
        last = (size[0] * ratio, size[1] * ratio)
        return (size, *(sizes.of_stages(after, last) if after else ()))
