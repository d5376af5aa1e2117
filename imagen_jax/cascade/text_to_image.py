"""A trained cascade with its text encoder: prompts in, pictures out."""

import dataclasses
import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import partitioning
from imagen_jax.cascade import editing, images
from imagen_jax.cascade.cascade import Cascade
from imagen_jax.cascade.contact_sheet import contact_sheet
from imagen_jax.cascade.recipe import SamplingRecipe, make_solver
from imagen_jax.cascade.request import Request
from imagen_jax.diffusion import grids
from imagen_jax.text import tokenizer
from imagen_jax.text.encoder import TextEmbedding, TextEncoder

# Called with (stage name, network calls done in all, network calls in all).
Report = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Samples:
    """Drawn pictures; in a notebook the value shows itself as a contact sheet.

    Attributes:
      prompts: one a picture.
      stages: one uint8 array [P, H, W, 3] a stage, smallest first.
      stage_names: one a stage.
    """

    prompts: tuple[str, ...]
    stages: tuple[np.ndarray, ...]
    stage_names: tuple[str, ...]

    @property
    def images(self) -> np.ndarray:
        """The last stage's pictures, uint8 [P, H, W, 3]."""
        return self.stages[-1]

    def sheet(self, cell: int = 256):
        """A contact sheet (PIL image) of the last stage."""
        return contact_sheet(list(self.images), self.prompts, cell=cell)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.sheet().save(buffer, "PNG")
        return buffer.getvalue()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextToImage:
    """What `imagen_jax.load` returns.

    Attributes:
      cascade: the stages.
      encoder: tokenizer and text network.
      text_params: of the encoder.
      params: one reader of parameters a stage, called when the stage begins.
      recipes: each stage's own sampling settings.
      batch: the most pictures drawn at once.
      words: all that its training captions hold, in lower case; none if not known.
    """

    cascade: Cascade
    encoder: TextEncoder
    text_params: Any
    params: tuple[Callable[[], Any], ...]
    recipes: tuple[SamplingRecipe, ...]
    batch: int = 8
    words: frozenset[str] = frozenset()

    def unknown_words(self, prompts: Sequence[str] | str) -> tuple[str, ...]:
        """Words that no training caption held, in the order of the prompts.

        The model draws what the other words say.
        """
        text = prompts if isinstance(prompts, str) else " ".join(prompts)
        found = dict.fromkeys(tokenizer.words(text))
        return tuple(w for w in found if self.words and w not in self.words)

    def sample(
        self,
        prompts: Sequence[str] | str,
        *,
        num: int = 1,
        seed: int = 0,
        progress: Report | None = None,
        given: Request | None = None,
        **settings: Any,
    ) -> Samples:
        """Draw `num` pictures of each prompt.

        A picture depends on its prompt, the seed and its number among the pictures of
        that prompt, not on what is drawn beside it.

        Args:
          prompts: one or more descriptions.
          num: pictures a prompt.
          seed: of the noise.
          progress: called while drawing.
          given: what is asked beside the prompts, one row for all pictures: a picture
            to change or to enlarge, the size (`editing` makes it).
          **settings: `guidance`, `steps`, `threshold`, `aug_level`, `percentile`,
            `solver`, as in `recipes_with`.

        Returns:
          The pictures of all stages, grouped by prompt.

        Raises:
          ValueError: for no prompt, an empty or too long prompt, or a bad setting.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts or any(not p.strip() for p in prompts):
            raise ValueError("sample: prompts must not be empty; describe a picture.")
        if num < 1:
            raise ValueError(f"sample: num must be >= 1, got {num}.")
        recipes = self.recipes_with(**settings)
        # In one call with the prompts, so that the encoder is compiled once.
        null = any(s.null_text == "empty_prompt" for s in self.cascade.stages)
        encoded = self.encoder(self.text_params, [*prompts, *[""] * null])
        embedded = TextEmbedding(*(a[: len(prompts)] for a in encoded))
        empty = TextEmbedding(*(a[-1:] for a in encoded)) if null else None
        owner = np.repeat(np.arange(len(prompts)), num)
        number = np.tile(np.arange(num), len(prompts))
        drawn = self._draw_all(
            embedded, owner, number, seed, recipes,
            empty=empty, progress=progress, given=given or Request(),
        )  # fmt: skip
        names = [stage.name for stage in self.cascade.stages]
        return Samples(
            tuple(prompts[i] for i in owner),
            tuple(drawn),
            tuple(names[-len(drawn) :]),
        )

    edit = editing.edit
    upscale = editing.upscale
    variations = editing.variations

    def recipes_with(self, **settings: Any) -> tuple[SamplingRecipe, ...]:
        """The stages' recipes with settings changed.

        Args:
          **settings: each one value for all stages or a sequence of one a stage;
            None keeps the model's own. `guidance` (w, 1 is off), `steps`,
            `threshold`, `percentile`, `threshold_cap`, `aug_level`, `solver` ("ddim",
            "ancestral"), `grid` (as in `grids.by_name`; DeepFloyd IF's presets bring
            their number of steps).
        """
        names = {"guidance": "w"}
        recipes = list(self.recipes)
        for name, value in settings.items():
            if value is None:
                continue
            field = names.get(name, name)
            if field not in {f.name for f in dataclasses.fields(SamplingRecipe)}:
                raise ValueError(f"sample: unknown setting {name!r}.")
            many = isinstance(value, Sequence) and not isinstance(value, str)
            values = list(value) if many else [value] * len(recipes)
            if len(values) != len(recipes):
                raise ValueError(
                    f"sample: {name} must be one value or one for each of the "
                    f"{len(recipes)} stages, got {len(values)}."
                )
            for i, v in enumerate(values):
                changes = {field: v}
                if field == "solver":
                    changes = {"solver": make_solver(str(v))}
                elif field == "grid":
                    grid = grids.by_name(str(v))
                    steps = grid.length or recipes[i].steps
                    changes = {"grid": grid, "steps": steps}
                recipes[i] = dataclasses.replace(recipes[i], **changes)
        for recipe in recipes:
            recipe.check()
        return tuple(recipes)

    def _draw_all(
        self,
        embedded,
        owner,
        number,
        seed,
        recipes,
        *,
        given: Request,
        empty=None,
        progress=None,
    ):
        """Draw in batches of one size, so that each stage compiles once."""
        mesh = partitioning.make_mesh()
        devices = mesh.size
        size = min(self.batch, len(owner))
        size = -(-size // devices) * devices
        batches = -(-len(owner) // size)
        first, _ = self.cascade.plan(given)
        total = batches * sum(r.steps for r in recipes[first:])
        done = 0

        def report(stage, step, steps, x):
            nonlocal done
            if progress is not None:
                # Waiting keeps the count honest: dispatch runs ahead of drawing.
                jax.block_until_ready(x)
                i = self.cascade.stages.index(stage)
                before = sum(r.steps for r in recipes[first:i])
                progress(stage.name, done + before + step, total)

        out = [[] for _ in recipes[first:]]
        with partitioning.use(mesh):
            split = partitioning.batch_sharding(mesh)
            whole = partitioning.replicated(mesh)
            params = Placed(self.params, whole)
            for start in range(0, len(owner), size):
                # The last batch is filled up with repeats, dropped afterwards.
                rows = np.arange(start, start + size) % len(owner)
                base = jax.random.key(seed)
                keys = jax.vmap(lambda n, k=base: jax.random.fold_in(k, n))(
                    jnp.asarray(number[rows])
                )
                text = TextEmbedding(*(a[owner[rows]] for a in embedded))
                null = None
                if empty is not None:
                    null = TextEmbedding(*(jnp.repeat(a, size, 0) for a in empty))
                rows_of = partial(jnp.repeat, repeats=size, axis=0)
                request = dataclasses.replace(
                    jax.tree.map(rows_of, given), text=text, empty=null
                )
                keys, request = jax.device_put((keys, request), split)
                pictures = self.cascade.sample(
                    keys, params, request, recipes, progress=report
                )
                kept = min(size, len(owner) - start)
                for stage, x in zip(out, pictures, strict=True):
                    stage.append(np.asarray(images.to_uint8(x))[:kept])
                done += total // batches
        return [np.concatenate(stage) for stage in out]


class Placed(Sequence):
    """Parameter trees put on the devices when they are asked for, then kept.

    Where memory is short the trees of other stages go before one comes.

    Args:
      readers: one a stage.
      sharding: of every array.
      limit: bytes that may be kept, one copy of each tree counted; by default half of
        what a device holds.
    """

    def __init__(
        self,
        readers: Sequence[Callable[[], Any]],
        sharding: jax.sharding.NamedSharding,
        limit: float | None = None,
    ):
        self._readers, self._sharding = readers, sharding
        self._limit = memory_limit(sharding) if limit is None else limit
        self._placed: dict[int, Any] = {}

    def __len__(self) -> int:
        """The number of stages."""
        return len(self._readers)

    def __getitem__(self, i):
        """The tree of stage `i`, on the devices."""
        if i not in self._placed:
            tree = self._readers[i]()
            if size_of(tree) + size_of(self._placed) > self._limit:
                self._placed.clear()
            self._placed[i] = jax.device_put(tree, self._sharding)
        return self._placed[i]


def size_of(tree: Any) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def memory_limit(sharding: jax.sharding.Sharding) -> float:
    """Half of a device's memory in bytes; CPU devices share the machine's."""
    devices = sharding.device_set
    stats = next(iter(devices)).memory_stats() or {}
    if "bytes_limit" in stats:
        return 0.5 * stats["bytes_limit"]
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return 0.5 * pages * size / len(devices)
