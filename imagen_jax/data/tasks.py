"""Tasks by name, and mixtures of them: pure maps from an index to an example."""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from imagen_jax.data import emoji, order, shapes
from imagen_jax.text import tokenizer

Window = tuple[int, int, int]

SPLITS = ("train", "heldout")
BLOCK = 1 << 12
MIXTURE_SALT = 0x3117
REWORDING_SALT = 0x5A1D


class Source(Protocol):
    """Anything whose examples are a pure function of (seed, index)."""

    @property
    def name(self) -> str:
        """How configs and messages call it."""
        ...

    @property
    def has_image(self) -> bool:
        """Whether examples carry a picture."""
        ...

    def text(self, seed: int, index: int) -> str:
        """Return the caption alone, without drawing."""
        ...

    def example(
        self, seed: int, index: int, resolution: int, window: Window | None = None
    ) -> dict[str, Any]:
        """Return {"image": uint8 [H, W, 3], "text": str}."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One kind of scene, captioned and, unless `render` is None, drawn.

    scene(seed, index, split) makes what both share; caption(scene) says it and
    render(scene, resolution, window) draws it as uint8 [H, W, 3]; labels(scene), if
    any, are arrays that go with the whole picture; reworded(scene, draw), if any, says
    it once more, in other words. `size` is the number of distinct indices, None where
    there is no end; a sized task is shuffled anew in each epoch.
    """

    name: str
    scene: Callable[[int, int, str], Any]
    caption: Callable[[Any], str]
    render: Callable[[Any, int, Window | None], np.ndarray] | None = None
    labels: Callable[[Any], dict[str, np.ndarray]] | None = None
    reworded: Callable[[Any, order.Draw], str] | None = None
    size: int | None = None
    split: str = "train"

    def __post_init__(self):
        if self.split not in SPLITS:
            raise ValueError(
                f"Task: split must be one of {SPLITS}, got {self.split!r}."
            )

    @property
    def has_image(self) -> bool:
        """Whether examples carry a picture."""
        return self.render is not None

    def source_scene(self, seed: int, index: int) -> Any:
        """Return the scene at a place of the (shuffled, endless) stream."""
        if self.size is not None:
            epoch, position = divmod(index, self.size)
            index = order.permute(position, self.size, order.digest(seed, epoch))
        return self.scene(seed, index, self.split)

    def text(self, seed: int, index: int) -> str:
        """Return the caption alone, without drawing."""
        return self.caption(self.source_scene(seed, index))

    def example(
        self, seed: int, index: int, resolution: int, window: Window | None = None
    ) -> dict[str, Any]:
        """Return {"image": uint8 [H, W, 3], "text": str} and labels, as far as any.

        With `reworded`, "reworded" is the text in other words.
        """
        scene = self.source_scene(seed, index)
        example: dict[str, Any] = {"text": self.caption(scene)}
        if self.render is not None:
            example["image"] = self.render(scene, resolution, window)
        if self.labels is not None:
            example.update(self.labels(scene))
        if self.reworded is not None:
            draw = order.Draw(seed, index, REWORDING_SALT)
            example["reworded"] = self.reworded(scene, draw)
        return example

    def text_only(self) -> "Task":
        """Return the same captions in the same order, without pictures."""
        return dataclasses.replace(self, name=f"{self.name}_captions", render=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """Several sources in fixed proportions, itself a source.

    The index falls into blocks of 4096 places; in each block every source has its
    share of places, to the nearest whole one, in an order that is a permutation keyed
    by (seed, block). So the map index -> (source, its own index) needs no state, is
    exact in every block, and repeats or skips nothing.
    """

    name: str
    sources: tuple[Source, ...]
    weights: tuple[float, ...]

    def __post_init__(self):
        if len(self.sources) != len(self.weights) or not self.sources:
            raise ValueError(
                f"Mixture: one weight a source is required, got {len(self.sources)} "
                f"sources and {len(self.weights)} weights."
            )
        if min(self.weights) <= 0:
            raise ValueError(
                f"Mixture: weights must be positive, got {self.weights}. Leave out "
                "a source instead."
            )
        if len({source.has_image for source in self.sources}) > 1:
            raise ValueError(
                "Mixture: sources with and without images do not mix, got "
                f"{[source.name for source in self.sources]}."
            )

    @property
    def has_image(self) -> bool:
        """Whether examples carry a picture."""
        return self.sources[0].has_image

    @functools.cached_property
    def bounds(self) -> tuple[int, ...]:
        """Where each source's places begin in a block, and the block's end."""
        ends = itertools.accumulate(self.weights)
        return (0, *(round(BLOCK * end / sum(self.weights)) for end in ends))

    def locate(self, seed: int, index: int) -> tuple[Source, int]:
        """Return which source makes the example, and its index there."""
        block, position = divmod(index, BLOCK)
        place = order.permute(position, BLOCK, order.digest(seed, block, MIXTURE_SALT))
        which = bisect.bisect_right(self.bounds, place) - 1
        start, end = self.bounds[which], self.bounds[which + 1]
        return self.sources[which], block * (end - start) + place - start

    def text(self, seed: int, index: int) -> str:
        """Return the caption alone, without drawing."""
        source, index = self.locate(seed, index)
        return source.text(seed, index)

    def example(
        self, seed: int, index: int, resolution: int, window: Window | None = None
    ) -> dict[str, Any]:
        """Return the source's example at this place of the stream."""
        source, index = self.locate(seed, index)
        return source.example(seed, index, resolution, window)


def shapes_task(split: str = "train") -> Task:
    """Coloured shapes with relations; split "train" or "heldout"."""
    return Task(
        name="shapes",
        split=split,
        scene=shapes.scene,
        caption=shapes.caption,
        render=shapes.render,
    )


def emoji_task(split: str = "train") -> Task:
    """Noto Color Emoji on coloured grounds; split "train" or "heldout"."""
    return Task(
        name="emoji",
        split=split,
        scene=emoji.scene,
        caption=emoji.caption,
        render=emoji.render,
    )


def labelled_emoji(split: str = "train") -> Task:
    """The emoji task's pictures, some spoiled, with what a detector should find."""
    return dataclasses.replace(
        emoji_task(split),
        name="labelled_emoji",
        scene=emoji.spoiled_scene,
        labels=emoji.labels,
    )


def reworded_emoji(split: str = "train") -> Task:
    """Two captions of each emoji scene and what they show, for text pretraining."""
    return dataclasses.replace(
        emoji_task(split),
        name="reworded_emoji",
        scene=emoji.worded_scene,
        render=None,
        labels=emoji.grounding,
        reworded=emoji.reworded,
    )


def captions_mixture(split: str = "train") -> Mixture:
    """All captions this package can make, for text pretraining; no pictures."""
    return Mixture(
        name="captions",
        sources=(emoji_task(split).text_only(), shapes_task(split).text_only()),
        weights=(0.8, 0.2),
    )


def scenes_mixture(split: str = "train") -> Mixture:
    """Emoji and shapes together, with pictures."""
    return Mixture(
        name="scenes",
        sources=(emoji_task(split), shapes_task(split)),
        weights=(0.8, 0.2),
    )


def by_name(name: str, split: str = "train") -> Source:
    """Return the task or mixture that a config names.

    Raises:
        ValueError: for a name that is not in NAMES.
    """
    if name == "shapes":
        return shapes_task(split)
    if name == "emoji":
        return emoji_task(split)
    if name == "labelled_emoji":
        return labelled_emoji(split)
    if name == "reworded_emoji":
        return reworded_emoji(split)
    if name == "scenes":
        return scenes_mixture(split)
    if name == "shapes_captions":
        return shapes_task(split).text_only()
    if name == "emoji_captions":
        return emoji_task(split).text_only()
    if name == "captions":
        return captions_mixture(split)
    raise ValueError(f"tasks: name must be one of {NAMES}, got {name!r}.")


def words(source: Source, seed: int = 0, num: int = 20_000) -> list[str]:
    """Return all words of a source's first captions, in lower case, sorted."""
    found = set()
    for index in range(num):
        found.update(tokenizer.words(source.text(seed, index)))
    return sorted(found)


NAMES = (
    "shapes",
    "emoji",
    "labelled_emoji",
    "reworded_emoji",
    "scenes",
    "shapes_captions",
    "emoji_captions",
    "captions",
)
