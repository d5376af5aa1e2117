"""The order of drawing: stage by stage, in chunks of pictures that memory holds."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from imagen_jax import partitioning
from imagen_jax.cascade import images
from imagen_jax.cascade.cascade import Cascade, Size
from imagen_jax.cascade.recipe import SamplingRecipe
from imagen_jax.cascade.request import Request
from imagen_jax.cascade.samples import Samples
from imagen_jax.types import Array, Float

_to_float = jax.jit(images.to_float)
_to_uint8 = jax.jit(images.to_uint8)


@jax.jit
@jax.vmap
def _keys(seed, number):
    return jax.random.fold_in(jax.random.key(seed), number)


class Stop(Exception):
    """Raised by a `progress` callback: end here, and keep what is done."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """What a `progress` callback is told after every few steps.

    Attributes:
      stage: name of the stage that is drawing.
      step, steps: done, and in all, of its present chunk of pictures.
      done, total: steps of all chunks and stages of this drawing.
      rows: which of the P pictures the chunk holds.
      x: the pictures as predicted now, on the devices, in [-1, 1] or a little outside;
        behind those of `rows` there may be repeats.
    """

    stage: str
    step: int
    steps: int
    done: int
    total: int
    rows: range
    x: Float[Array, "B H W C"]

    def pictures(self) -> np.ndarray:
        """The pictures of `rows` as predicted now, uint8 [R, H, W, 3]."""
        return np.asarray(_to_uint8(self.x))[: len(self.rows)]


Progress = Callable[[Moment], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is drawn, with what, and on which devices.

    Attributes:
      cascade: the stages.
      params: one tree a stage, asked for when its stage begins.
      mesh: the devices, which share a chunk of pictures.
      recipes: one a stage.
      batch: the most pictures at once, one a stage.
      request: the embedded prompts, host arrays, one row a picture.
      given: what is asked beside them, one row for all pictures.
      frames: pictures of the denoising that are kept of each stage.
      progress: called after every few steps.
    """

    cascade: Cascade
    params: Callable[[int], Any]
    mesh: Mesh
    recipes: Sequence[SamplingRecipe]
    batch: Sequence[int]
    request: Request
    given: Request
    frames: int = 0
    progress: Progress | None = None

    def go_on(self, begun: Samples, last: int) -> Samples:
        """Draw what `begun` lacks up to stage `last`: all of a stage, then the next.

        A stage starts from what the PNGs of the one before would hold.

        Raises:
          ValueError: if `begun` has no stage that it can go on from.
          RuntimeError: if a device's memory is exceeded, saying what to lower.
        """
        names, count = [s.name for s in self.cascade.stages], len(begun.prompts)
        first, sizes = self.cascade.plan(self.given)
        if begun.stages:
            first = names.index(begun.stage_names[0])
            sizes = self.cascade.sizes_after(first, begun.stages[0].shape[1:3])
        for i, size in zip(range(first, last + 1), sizes, strict=False):
            self.cascade.check(i, self.recipes[i], self.given, size)
        alone = first > 0 and self.given.low_res is None
        if alone and len(begun.stages[0]) < count:
            raise ValueError(
                f"sample: to go on from stage {names[first]} each of the {count} "
                f"pictures of it is required, got {len(begun.stages[0])}."
            )
        drawn = [list(stage) for stage in begun.stages]
        drawn += [[] for _ in range(first + len(drawn), last + 1)]
        films: list[dict[int, np.ndarray]] = [{} for _ in drawn]
        plan = [
            (i, rows)
            for i in range(first, last + 1)
            for rows in self._chunks(i, len(drawn[i - first]), count)
        ]
        total, done = sum(self.recipes[i].steps for i, _ in plan), 0
        complete = True
        try:
            for i, rows in plan:
                below = None
                if i > first:
                    below = [drawn[i - first - 1][row] for row in rows]
                chunk = Chunk(self, i, rows, sizes[i - first], Span(done, total))
                pictures = chunk.draw(begun, below)
                drawn[i - first] += list(pictures)
                films[i - first] |= dict(zip(rows, chunk.film(), strict=True))
                done += self.recipes[i].steps
        except Stop:
            complete = False
        stages = tuple(np.stack(pictures) for pictures in drawn if pictures)
        return dataclasses.replace(
            begun,
            stages=stages,
            stage_names=tuple(names[first : first + len(stages)]),
            frames=tuple(map(frames_of, stages, films)) if self.frames else (),
            complete=complete,
        )

    def asked(self, rows: np.ndarray) -> Request:
        """What is asked of some pictures."""
        given = jax.tree.map(lambda a: np.repeat(a, len(rows), axis=0), self.given)
        prompts = jax.tree.map(lambda a: a[rows], self.request)
        return dataclasses.replace(
            given, text=prompts.text, empty=prompts.empty, negative=prompts.negative
        )

    def size(self, i: int, count: int) -> int:
        """Pictures of a chunk of stage `i`, a multiple of the devices that share it."""
        ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        return -(-min(self.batch[i], count) // ways) * ways

    def _chunks(self, i: int, begin: int, count: int) -> Iterator[range]:
        size = self.size(i, count)
        for start in range(begin, count, size):
            yield range(start, min(start + size, count))


class Span(NamedTuple):
    """Steps done before a chunk, and in all."""

    done: int
    total: int


class Chunk:
    """Some pictures of one stage, drawn at once.

    The last chunk of a stage is filled up with repeats, so that it compiles once.
    """

    def __init__(
        self, drawing: Drawing, i: int, rows: range, size: Size | None, span: Span
    ):
        self._drawing, self._i, self._rows = drawing, i, rows
        self._size, self._span = size, span
        self._frames: list[np.ndarray] = []
        self._step = 0

    def draw(self, begun: Samples, below: Sequence[np.ndarray] | None) -> np.ndarray:
        """The pictures, uint8 [R, H, W, 3].

        Args:
          begun: whose prompts, seeds and numbers are drawn.
          below: the pictures that they start from, uint8 [h, w, 3] each; None for those
            that are given, if any.
        """
        drawing, stage = self._drawing, self._drawing.cascade.stages[self._i]
        count = drawing.size(self._i, len(begun.prompts))
        places = np.resize(np.arange(len(self._rows)), count)
        rows = np.asarray(self._rows)[places]
        split = partitioning.batch_sharding(drawing.mesh)

        def put(tree):
            return jax.device_put(tree, split)

        try:
            with partitioning.use(drawing.mesh):
                keys = _keys(
                    put(np.asarray(begun.seeds, np.uint32)[rows]),
                    put(np.asarray(begun.numbers, np.uint32)[rows]),
                )
                request = put(drawing.asked(rows))
                if below is not None:
                    low_res = _to_float(put(np.stack(below)[places]))
                    request = dataclasses.replace(request, low_res=low_res)
                x = drawing.cascade.draw(
                    self._i,
                    keys,
                    drawing.params(self._i),
                    request,
                    drawing.recipes[self._i],
                    size=self._size,
                    slices=max(10, drawing.frames),
                    progress=self._report,
                )
                return np.asarray(_to_uint8(x))[: len(self._rows)]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise RuntimeError(exceeded(stage.name, count)) from error

    def film(self) -> np.ndarray:
        """The kept frames of each picture: uint8 [R, F, H, W, 3]."""
        if not self._frames:
            return np.zeros((len(self._rows), 0), np.uint8)
        return np.stack(self._frames, axis=1)

    def _report(self, stage, step: int, steps: int, x: Array) -> None:
        drawing = self._drawing
        moment = Moment(
            stage=stage.name,
            step=step,
            steps=steps,
            done=self._span.done + step,
            total=self._span.total,
            rows=self._rows,
            x=x,
        )
        # After each F-th part of the steps, the last of which is the picture.
        before, self._step = self._step, step
        if step * drawing.frames // steps > before * drawing.frames // steps:
            self._frames.append(moment.pictures())
        if drawing.progress is not None:
            # Waiting keeps the count honest: dispatch runs ahead of drawing.
            jax.block_until_ready(x)
            drawing.progress(moment)


def frames_of(stage: np.ndarray, films: dict[int, np.ndarray]) -> np.ndarray:
    """Frames [F, P, H, W, 3] of a stage; pictures of an earlier run stand still."""
    length = max((len(film) for film in films.values()), default=0)
    frames = np.repeat(stage[None], length, axis=0)
    for row, film in films.items():
        frames[:, row] = film
    return frames


def exceeded(stage: str, size: int) -> str:
    """The line for a device whose memory is exceeded."""
    if size > 1:
        return (
            f"sample: {size} pictures of stage {stage} at once exceed the devices' "
            f"memory; lower batch (--batch) to {max(1, size // 2)}."
        )
    return (
        f"sample: one picture of stage {stage} exceeds the device's memory; load the "
        "model in half precision (--dtype bfloat16), or split its parameters (--mesh "
        "fsdp=N)."
    )
