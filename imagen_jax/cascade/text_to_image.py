"""A trained cascade with its text encoder: prompts in, pictures out."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from imagen_jax import partitioning
from imagen_jax.cascade import (
    autoguidance,
    drawing,
    editing,
    placing,
    progress_bar,
    settings,
)
from imagen_jax.cascade.cascade import Cascade
from imagen_jax.cascade.drawing import Moment, Progress, Stop
from imagen_jax.cascade.recipe import SamplingRecipe
from imagen_jax.cascade.request import Request
from imagen_jax.cascade.samples import Samples
from imagen_jax.text import mixtures, tokenizer
from imagen_jax.text.encoder import TextEmbedding, TextEncoder

__all__ = ["Moment", "Samples", "Stop", "TextToImage"]

TEXT = 0  # The place of the text encoder among the resident networks.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextToImage:
    """What `imagen_jax.load` returns.

    Attributes:
      cascade: the stages.
      encoder: tokenizer and text network.
      text_params: reader of its parameters, called when prompts are to be embedded.
      params: one reader of parameters a stage, called when the stage begins.
      recipes: each stage's own sampling settings.
      batch: the most pictures drawn at once; one number, or one a stage.
      mesh: sizes of the device mesh, as in `partitioning.make_mesh`: {"fsdp": 4} splits
        the parameters over four devices. By default all devices share the pictures and
        each has all parameters.
      words: all that its training captions hold, in lower case; none if not known.
      name: what it was loaded from.
    """

    cascade: Cascade
    encoder: TextEncoder
    text_params: Callable[[], Any]
    params: tuple[Callable[[], Any], ...]
    recipes: tuple[SamplingRecipe, ...]
    batch: int | tuple[int, ...] = 8
    mesh: Mapping[str, int] | None = None
    words: frozenset[str] = frozenset()
    name: str = ""

    def __post_init__(self):
        """Check the batch, as early as it can be wrong."""
        batch = self.batches
        if len(batch) != len(self.cascade.stages) or min(batch) < 1:
            raise ValueError(
                "sample: batch must be one number >= 1, or one for each of the "
                f"{len(self.cascade.stages)} stages, got {self.batch}."
            )

    @property
    def stage_names(self) -> tuple[str, ...]:
        """One a stage."""
        return tuple(stage.name for stage in self.cascade.stages)

    @property
    def batches(self) -> tuple[int, ...]:
        """The most pictures at once, one a stage."""
        if isinstance(self.batch, int):
            return (self.batch,) * len(self.cascade.stages)
        return tuple(self.batch)

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
        negative: Sequence[str] | str = "",
        size: tuple[int, int] | None = None,
        until: str | None = None,
        frames: int = 0,
        progress: Progress | bool | None = None,
        given: Request | None = None,
        **settings: Any,
    ) -> Samples:
        """Draw `num` pictures of each prompt.

        A picture depends on its prompt, the seed and its number among the pictures of
        that prompt, not on what is drawn beside it nor in which chunks.

        Args:
          prompts: one or more descriptions; "A ~> B @ 0.25" lies a quarter of the way
            from A to B (`text.mixtures`).
          num: pictures a prompt, so that there are P = num * len(prompts).
          seed: of the noise, in [0, 2^32).
          negative: what guidance leads away from, in place of the model's own null; one
            text, or one a prompt.
          size: (height, width) of the last stage's pictures; by default square, as the
            stages were made for.
          until: name of the last stage to draw; by default the cascade's last.
            `resume` goes on from there.
          frames: pictures of the denoising to keep of each stage; 0 keeps none.
          progress: True for a progress bar, False for none, by default one where a
            person is at work; or a function called with a `Moment` after every few
            steps. If it raises `Stop`, what is done is returned.
          given: what is asked beside the prompts, one row for all pictures: with
            `low_res` [1, h, w, 3] drawing begins at the stage that takes its size.
          **settings: as in `recipes_with`.

        Returns:
          The pictures of all stages, grouped by prompt: `images` is uint8
          [P, H, W, 3], `stages` has one such array a stage, `frames`
          uint8 [F, P, H, W, 3].

        Raises:
          ValueError: for no prompt, an empty or too long prompt, or a bad setting.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts or any(not p.strip() for p in prompts):
            raise ValueError("sample: prompts must not be empty; describe a picture.")
        if num < 1:
            raise ValueError(f"sample: num must be >= 1, got {num}.")
        if not 0 <= seed < 2**32:
            raise ValueError(f"sample: seed must be in [0, 2^32), got {seed}.")
        negatives = [negative] * len(prompts) if isinstance(negative, str) else negative
        if len(negatives) != len(prompts):
            raise ValueError(
                "sample: negative must be one text, or one for each of the "
                f"{len(prompts)} prompts, got {len(negatives)}."
            )
        begun = Samples(
            tuple(prompt for prompt in prompts for _ in range(num)),
            numbers=tuple(range(num)) * len(prompts),
            seeds=(seed,) * num * len(prompts),
            negatives=tuple(text for text in negatives for _ in range(num)),
            size=size,
        )
        return self.resume(
            begun,
            until=until,
            frames=frames,
            progress=progress,
            given=given,
            **settings,
        )

    edit = editing.edit
    upscale = editing.upscale
    variations = editing.variations

    def interpolate(
        self, first: str, second: str, pictures: int = 5, **options: Any
    ) -> Samples:
        """Draw on the way from one prompt to another, all from the same noise.

        Args:
          first, second: descriptions.
          pictures: on the way, both ends among them; >= 2.
          **options: as `sample` takes them.
        """
        if pictures < 2:
            raise ValueError(f"interpolate: pictures must be >= 2, got {pictures}.")
        return self.sample(mixtures.way(first, second, pictures), **options)

    def guided_by(self, weak: "TextToImage") -> "TextToImage":
        """This model with a weaker one beside it, for the setting `autoguidance`.

        Each stage gets the weaker model's stage of its resolution, if there is one.

        Raises:
          ValueError: if no stage has one, a pair does not fit together, or the texts
            are embedded by another encoder.
        """
        return autoguidance.paired(self, weak)

    def resume(
        self,
        begun: Samples,
        *,
        until: str | None = None,
        frames: int = 0,
        progress: Progress | bool | None = None,
        given: Request | None = None,
        **settings: Any,
    ) -> Samples:
        """Draw what is lacking: after `until`, after `Stop`, or from saved pictures.

        With the same settings the result equals an uninterrupted run's.

        Args:
          begun: from `sample`, or from PNGs (`picture_files.read`).
          until: as in `sample`.
          frames: as in `sample`.
          progress: as in `sample`.
          given: as in `sample`.
          **settings: as in `recipes_with`; what `begun` was drawn with does not count.

        Returns:
          `begun` with the stages up to `until`.

        Raises:
          ValueError: as `sample`, or if `begun` has stages that this cascade lacks.
        """
        if frames < 0:
            raise ValueError(f"sample: frames must be >= 0, got {frames}.")
        names = self.stage_names
        until = names[-1] if until is None else until
        if unknown := {until, *begun.stage_names} - set(names):
            raise ValueError(
                f"sample: stages must be among {list(names)}, got {sorted(unknown)}."
            )
        recipes = self.recipes_with(**settings)
        self._check_guidance(recipes, begun)
        if begun.edited and given is None:
            raise ValueError(
                "resume: these were begun from a picture of one's own; give it again "
                "as given= (a Request of `editing.to_change` or its like)."
            )
        given = given or Request()
        if given.size is None:
            given = dataclasses.replace(given, size=begun.size)
        begun = dataclasses.replace(
            begun,
            model=self.name,
            settings=self.plain(recipes),
            edited=not (given.edit is None and given.low_res is None),
        )
        with progress_bar.shown(progress) as report:
            return drawing.Drawing(
                cascade=self.cascade,
                params=lambda i: self.resident[TEXT + 1 + i],
                mesh=self.resident.mesh,
                recipes=recipes,
                batch=self.batches,
                request=self._embedded(begun),
                given=given,
                frames=frames,
                progress=report,
            ).go_on(begun, names.index(until))

    def recipes_with(
        self,
        recipe: str | pathlib.Path | Sequence[Mapping[str, Any]] | None = None,
        **changes: Any,
    ) -> tuple[SamplingRecipe, ...]:
        """The stages' recipes with settings changed.

        Args:
          recipe: a recipe file, or its list of stages: what they give replaces the
            model's own.
          **changes: each one value for all stages or a sequence of one a stage; None
            keeps what is there. The fields of `SamplingRecipe`: `guidance` (w),
            `steps`, `solver` ("ddim", "ancestral"), `threshold`, `percentile`,
            `threshold_cap`, `aug_level`, `grid` (as in `grids.by_name`; DeepFloyd IF's
            presets bring their number of steps), ...; and those of the solver, such as
            `gamma`.

        Raises:
          ValueError: naming the setting that there is not, or cannot be.
        """
        recipes = self.recipes
        if recipe is not None:
            file = isinstance(recipe, str | pathlib.Path)
            stages = settings.read(recipe) if file else recipe
            recipes = settings.from_plain(recipes, self.stage_names, stages)
        return settings.changed(recipes, changes)

    def plain(self, recipes: Sequence[SamplingRecipe]) -> tuple[dict[str, Any], ...]:
        """Recipes of all stages as JSON has them, which `recipes_with` reads."""
        return tuple(
            {"stage": name, **settings.plain(recipe)}
            for name, recipe in zip(self.stage_names, recipes, strict=True)
        )

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """Embed prompts, each different one once: host arrays, one row a prompt.

        Raises:
          ValueError: for a prompt that is too long.
        """
        firsts, seconds, shares = zip(*map(mixtures.parts, prompts), strict=True)
        if any(shares):
            found = self.embed([*firsts, *seconds])
            first = jax.tree.map(lambda a: a[: len(prompts)], found)
            second = jax.tree.map(lambda a: a[len(prompts) :], found)
            return mixtures.between(first, second, shares)
        prompts = firsts
        unique = list(dict.fromkeys(prompts))
        # Few sizes, so that few programs are compiled.
        size = min(1 << (len(unique) - 1).bit_length(), max(self.batches))
        size = -(-size // self.resident.mesh.size) * self.resident.mesh.size
        rows = []
        with partitioning.use(self.resident.mesh):
            params = self.resident[TEXT]
            for start in range(0, len(unique), size):
                some = unique[start : start + size]
                filled = [*some, *[some[-1]] * (size - len(some))]
                rows.append(jax.device_get(self.encoder(params, filled)))
        place = {prompt: i for i, prompt in enumerate(unique)}
        places = [place[prompt] for prompt in prompts]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays)[places], *rows)

    @functools.cached_property
    def resident(self) -> placing.Resident:
        """The text encoder's parameters and each stage's, on the devices."""

        def shapes(init):
            return lambda: jax.eval_shape(init, jax.random.key(0))

        inits = [self.encoder.init, *(s.init_drawing for s in self.cascade.stages)]
        return placing.Resident(
            [self.text_params, *self.params],
            [shapes(init) for init in inits],
            partitioning.make_mesh(self.mesh),
        )

    def _check_guidance(self, recipes: Sequence[SamplingRecipe], begun: Samples):
        for stage, recipe in zip(self.cascade.stages, recipes, strict=True):
            if recipe.autoguidance is not None and stage.weak is None:
                raise ValueError(
                    f"sample: stage {stage.name} has no weaker model for autoguidance; "
                    "give one (--guide, `guided_by`), or set it to off there."
                )
        if not any(begun.negatives):
            return
        if not all(begun.negatives):
            raise ValueError(
                "sample: negative must be given for all prompts or none, got an empty "
                "one among others."
            )
        if all(recipe.w is None or float(recipe.w) == 1.0 for recipe in recipes):
            raise ValueError(
                "sample: a negative prompt is what guidance leads away from, but no "
                "stage is guided; set guidance above 1."
            )

    def _embedded(self, begun: Samples) -> Request:
        null = any(s.null_text == "empty_prompt" for s in self.cascade.stages)
        count, led = len(begun.prompts), any(begun.negatives)
        # In one call, so that the encoder is compiled once.
        asked = [*begun.prompts, *(begun.negatives if led else ()), *[""] * null]
        found = self.embed(asked)
        text = jax.tree.map(lambda a: a[:count], found)
        negative = jax.tree.map(lambda a: a[count : 2 * count], found) if led else None
        empty = None
        if null:
            empty = jax.tree.map(lambda a: np.repeat(a[-1:], count, axis=0), found)
        return Request(text=text, empty=empty, negative=negative)
