"""How settings of the first stage compare: same prompts, same noise, one judge.

Each setting draws the same held-out prompts from the same seeds, so that two settings
are compared picture by picture. The later stages, with the model's own settings,
enlarge what the first drew to the size at which the scorer looks. Settings take turns,
chunk by chunk: what slows the machine for a while slows all of them.
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagen_jax.cascade.samples import Samples
from imagen_jax.cascade.text_to_image import TextToImage
from imagen_jax.data import emoji
from imagen_jax.evaluation import composition, composition_suite

# Prompts to take the first `num` of: more prompts later keep the pictures drawn before.
POOL = 600
CHUNK = composition_suite.CHUNK

Settings = Mapping[str, Any]
Progress = Callable[[int, int], None]


class Drawn(NamedTuple):
    """What one setting drew, one row a prompt.

    Attributes:
      base: the first stage's pictures, uint8 [N, h, w, 3].
      judged: as the scorer sees them, uint8 [N, H, W, 3].
      seconds: that the first stage took for each chunk; nan where it was compiled.
      verdicts: what the scorer says, one a prompt.
    """

    base: np.ndarray
    judged: np.ndarray
    seconds: np.ndarray
    verdicts: list[composition.Verdict]

    @property
    def right(self) -> np.ndarray:
        """Whether a picture is wholly right, bool [N]."""
        return np.array([verdict.right for verdict in self.verdicts])

    @property
    def saturation(self) -> float:
        """The share of the first stage's channel values that are 0 or 255."""
        return float(np.isin(self.base, (0, 255)).mean())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A model, its judge, and what is asked of both.

    Attributes:
      model: a cascade of emoji scenes; its own recipes hold where a setting is silent.
      scorer: finds what is in a picture.
      num: prompts.
      seed: of the prompts and the noise.
      out: keeps drawn pictures, so that an interrupted study goes on; None keeps none.
      identity: tells this model from others.
    """

    model: TextToImage
    scorer: composition.Scorer
    num: int
    seed: int = 0
    out: pathlib.Path | None = None
    identity: str = ""

    def __post_init__(self):
        """Refuse numbers of prompts that there are not, and too small a model."""
        if not 1 <= self.num <= POOL:
            raise ValueError(
                f"evaluate: num must be >= 1 and at most {POOL}, got {self.num}."
            )

        side = self.scorer.task.resolution
        if (largest := self.model.cascade.stages[-1].resolution) < side:
            raise ValueError(
                f"evaluate: the scorer looks at pictures of {side} pixels, but the "
                f"model's largest are of {largest}; use a model with a larger stage."
            )

    @functools.cached_property
    def pool(self) -> list[emoji.Scene]:
        """The composition suite's prompts."""
        return composition_suite.prompts(POOL, self.seed)

    @property
    def scenes(self) -> list[emoji.Scene]:
        """Those that are drawn, the first of them."""
        return self.pool[: self.num]

    @property
    def judged_stage(self) -> str:
        """The first stage whose pictures are as large as the scorer's."""
        side = self.scorer.task.resolution
        stages = self.model.cascade.stages
        return next(stage.name for stage in stages if stage.resolution >= side)

    def draw(
        self,
        settings: Mapping[str, Settings],
        progress: Progress = lambda done, total: None,
    ) -> dict[str, Drawn]:
        """Draw all prompts with each setting of the first stage.

        Args:
          settings: by name, as `TextToImage.recipes_with` takes them.
          progress: called with (pictures done, pictures in all).

        Raises:
          ValueError: if `out` holds pictures of something else.
        """
        scenes, done = self.scenes, 0
        folders = {name: self._folder(name, made) for name, made in settings.items()}
        kept = {name: [] for name in settings}
        compiled = set()
        for i, part in enumerate(composition_suite.chunks(scenes, CHUNK)):
            for name, made in settings.items():
                folder = folders[name]
                file = None if folder is None else folder / f"{i:04d}.npz"
                if file is None or not file.exists():
                    found = self._draw(part, self.seed + i, made)
                    if name not in compiled:
                        found["seconds"] = np.nan
                    compiled.add(name)
                    if file is not None:
                        whole = file.with_suffix(".part.npz")
                        np.savez(whole, **found)
                        whole.rename(file)
                else:
                    with np.load(file) as stored:
                        found = dict(stored)
                kept[name].append(found)
                done += len(part)
                progress(done, len(scenes) * len(settings))
        return {name: self._judged(parts, scenes) for name, parts in kept.items()}

    def true(self) -> Drawn:
        """True pictures of the first stage's size, enlarged as drawn ones are.

        What the scorer finds right in them is the most that can be found in any.
        """
        side = self.model.cascade.stages[0].resolution
        large = self.model.cascade.stages[-1].resolution
        parts = []
        for i, part in enumerate(composition_suite.chunks(self.scenes, CHUNK)):
            pictures = np.stack([emoji.render(scene, large) for scene in part])
            small = np.rint((composition.shrink(pictures, side) + 1.0) * 127.5)
            base = small.astype(np.uint8)
            begun = Samples(
                tuple(scene.caption for scene in part),
                (base,),
                self.model.stage_names[:1],
                seeds=(self.seed + i,) * len(part),
            )
            judged = self._enlarged(begun)
            parts.append({"base": base, "judged": judged, "seconds": np.nan})
        return self._judged(parts, self.scenes)

    def of_first(self, made: Settings) -> dict[str, Any]:
        """Settings of the first stage alone, as `TextToImage.sample` takes them."""
        rest = (None,) * (len(self.model.cascade.stages) - 1)
        return {name: (value, *rest) for name, value in made.items()}

    def _folder(self, name: str, made: Settings) -> pathlib.Path | None:
        if self.out is None:
            return None
        folder = self.out / "pictures" / name.replace(" ", "_")
        what = {
            "model": self.identity,
            "recipes": self.model.plain(self.model.recipes),
            "seed": self.seed,
            "prompts": [scene.caption for scene in self.pool],
            "setting": dict(made),
        }
        composition_suite.settle(folder, what)
        return folder

    def _draw(
        self, scenes: Sequence[emoji.Scene], seed: int, made: Settings
    ) -> dict[str, Any]:
        begun = time.perf_counter()
        drawn = self.model.sample(
            [scene.caption for scene in scenes],
            seed=seed,
            until=self.model.stage_names[0],
            progress=False,
            **self.of_first(made),
        )
        seconds = time.perf_counter() - begun
        judged = self._enlarged(drawn)
        return {"base": drawn.stages[0], "judged": judged, "seconds": seconds}

    def _enlarged(self, begun: Samples) -> np.ndarray:
        if self.judged_stage == self.model.stage_names[0]:
            return begun.stages[0]
        return self.model.resume(begun, until=self.judged_stage, progress=False).images

    def _judged(
        self, parts: list[dict[str, Any]], scenes: Sequence[emoji.Scene]
    ) -> Drawn:
        base, judged = (
            np.concatenate([part[name] for part in parts]) for name in Drawn._fields[:2]
        )
        seconds = np.array([float(part["seconds"]) for part in parts])
        verdicts = composition_suite.checked(self.scorer, judged, list(scenes))
        return Drawn(base, judged, seconds, verdicts)
