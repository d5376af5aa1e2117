"""Pictures with captions from files, as a source: pure functions of (seed, index)."""

import dataclasses
import functools
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from imagen_jax.data import (
    buckets,
    collection,
    finding,
    index,
    order,
    pictures,
    records,
    tasks,
)

CROPS = ("center", "random")
CAPTION_SALT = 0xCA97
CROP_SALT = 0xC30B
INSTEAD_SALT = 0x1257
# Examples looked at before a share of bad ones is believed.
FEW = 200
ATTEMPTS = 100
SQUARE = (buckets.PARTS, buckets.PARTS)


class TooManyBad(RuntimeError):
    """More examples than allowed could not be used."""


class Tally:
    """How many examples were read, and of those that could not be, why not."""

    def __init__(self, allowed: float):
        self.allowed = allowed
        self.read = 0
        self.bad: Counter[str] = Counter()
        self.worst = ""
        self.lock = threading.Lock()

    def good(self) -> None:
        """Count one that was read."""
        with self.lock:
            self.read += 1

    def count(self, error: pictures.BadExample, key: str) -> None:
        """Count one that could not be.

        Raises:
          TooManyBad: if the share of these is more than allowed.
        """
        with self.lock:
            self.read += 1
            self.bad[error.cause] += 1
            bad = self.bad.total()
            if self.read >= FEW and bad > self.allowed * self.read:
                causes = ", ".join(f"{name} {n}" for name, n in self.bad.most_common())
                raise TooManyBad(
                    f"{bad} of {self.read} examples are bad ({causes}), more than "
                    f"data.max_bad = {self.allowed:.1%}; the last is {key}: "
                    f"{error.detail}. `imagen-jax data check` finds all and marks "
                    "them, so that training leaves them out."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureTask:
    """Pictures and captions of one data set.

    An epoch holds every record once. One that proves unusable while it is read is
    counted, and another, drawn from the same data set, stands in for it.

    Attributes:
      name: for messages.
      contents: its records.
      crop: "center" or "random": where the square is cut from a picture that is none.
      shuffle: "global" or "window" (`collection.place_of`).
      caption_drop: how often a caption is replaced by the empty one; classifier-free
        guidance has its own, the stage's `text_drop`.
      shapes: others than the square, if any.
      tally: counts what is bad.
      has_image: False for the captions alone.
    """

    name: str
    contents: collection.Collection
    crop: str = "center"
    shuffle: str = "global"
    caption_drop: float = 0.0
    shapes: buckets.Buckets | None = None
    tally: Tally = dataclasses.field(default_factory=lambda: Tally(0.05))
    has_image: bool = True

    def __post_init__(self):
        for name, known in (("crop", CROPS), ("shuffle", collection.SHUFFLES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"data.{name}: must be one of {known}, got {getattr(self, name)!r}."
                )

    def locate(self, seed: int, index: int) -> tuple[int, tuple[int, int]]:
        """Return the record at a place of the endless stream, and (height, width).

        The latter in eighths of the resolution.
        """
        if self.shapes is not None:
            return self.shapes.locate(seed, index)
        epoch, position = divmod(index, len(self.contents))
        key = order.digest(seed, epoch)
        size = len(self.contents)
        return collection.place_of(position, size, key, self.shuffle), SQUARE

    def text(self, seed: int, index: int) -> str:
        """Return the caption alone, without decoding the picture."""
        record = self.record(self.locate(seed, index)[0])
        return self.choose(seed, index, records.texts(record))

    def record(self, number: int) -> records.Record:
        """Read a record, unchecked."""
        shard, row = self.contents.locate(number)
        return shard.record(row)

    def choose(self, seed: int, index: int, texts: Sequence[str]) -> str:
        """Draw one of the captions, or sometimes none."""
        draw = order.Draw(seed, index, CAPTION_SALT)
        if self.caption_drop and draw.uniform() < self.caption_drop:
            return ""
        return draw.choose(texts)

    def example(
        self,
        seed: int,
        index: int,
        resolution: int,
        window: tuple[int, int, int] | None = None,
    ) -> dict[str, Any]:
        """Return {"image": uint8 [H, W, 3], "text": str}, or the text alone."""
        number, shape = self.locate(seed, index)
        for attempt in range(ATTEMPTS):
            try:
                found = self.made(seed, index, number, resolution, shape, window)
            except pictures.BadExample as error:
                self.tally.count(error, self.key(number))
                draw = order.Draw(seed, index, order.digest(INSTEAD_SALT, attempt))
                number = draw.below(len(self.contents))
                continue
            self.tally.good()
            return found
        raise TooManyBad(f"{self.name}: {ATTEMPTS} bad examples in a row.")

    @property
    def bad(self) -> dict[str, int]:
        """How many records could not be used so far, by cause."""
        return dict(self.tally.bad)

    def text_only(self) -> "PictureTask":
        """Return the same captions in the same order, without pictures."""
        return dataclasses.replace(self, has_image=False)

    def key(self, number: int) -> str:
        """Return how messages call a record."""
        shard, row = self.contents.locate(number)
        return shard.key(row)

    def made(
        self,
        seed: int,
        index: int,
        number: int,
        resolution: int,
        shape: tuple[int, int],
        window: tuple[int, int, int] | None,
    ) -> dict[str, Any]:
        """Read, choose, cut and resize one record.

        Raises:
          BadExample: if it cannot be used.
        """
        record = self.record(number)
        text = self.choose(seed, index, records.texts(record))
        if not self.has_image:
            return {"text": text}
        height, width = (side * resolution // buckets.PARTS for side in shape)
        to = pictures.Size(width, height) if window is None else window[2:] * 2

        def cut(size: pictures.Size) -> pictures.Box:
            draw = order.Draw(seed, index, CROP_SALT) if self.crop == "random" else None
            box = largest(size, width / height, draw)
            if window is None:
                return box
            top, left, side = window
            return part(box, left / width, top / height, side / width, side / height)

        image = pictures.decode(record.picture, cut, pictures.Size(*to))
        return {"image": image, "text": text}


def largest(
    size: pictures.Size, aspect: float, draw: order.Draw | None
) -> pictures.Box:
    """Return the largest part of an aspect ratio, in units of the picture's sides.

    It lies in the middle, or where `draw` puts it.
    """
    own = size.width / size.height
    across, down = min(1.0, aspect / own), min(1.0, own / aspect)
    x, y = (draw.uniform(), draw.uniform()) if draw else (0.5, 0.5)
    left, top = x * (1 - across), y * (1 - down)
    return left, top, left + across, top + down


def part(
    box: pictures.Box, left: float, top: float, width: float, height: float
) -> pictures.Box:
    """Return a part of a box; arguments in units of the box's sides."""
    across, down = box[2] - box[0], box[3] - box[1]
    x, y = box[0] + left * across, box[1] + top * down
    return x, y, x + width * across, y + height * down


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """The group `data.pictures` of a config.

    Attributes:
      path: a folder, file or pattern, local or URL, or tfds:NAME; several with commas.
      weights: how often each path is drawn from; by their sizes if not given.
      split: of a TFDS data set.
      index: the folder of the tables; "" puts them within each path.
      picture, caption: names of the fields, or suffixes of tar members; "" takes the
        usual ones.
      crop: "center" or "random".
      buckets: aspect ratios (width / height) besides which no other is cut; none for
        squares alone.
      shuffle: "global", or "window" for files that are slow to read at random.
      caption_drop: how often a caption is left empty.
      heldout: share of the records that are kept for sheets and evaluation.
      max_bad: training stops when more than this share of examples cannot be used.
      min_side: the shorter side is at least this; 0 for the stage's resolution.
      max_aspect, min_caption, max_caption, column, at_least: `collection.Filter`.
    """

    path: str = ""
    weights: tuple[float, ...] = ()
    split: str = "train"
    index: str = ""
    picture: str = ""
    caption: str = ""
    crop: str = "center"
    buckets: tuple[float, ...] = ()
    shuffle: str = "global"
    caption_drop: float = 0.0
    heldout: float = 0.01
    max_bad: float = 0.05
    min_side: int = 0
    max_aspect: float = 0.0
    min_caption: int = 0
    max_caption: int = 0
    column: str = ""
    at_least: float = 0.0

    @property
    def paths(self) -> list[str]:
        """Each of the paths."""
        return [path.strip() for path in self.path.split(",") if path.strip()]


def source(
    settings: PictureSettings, split: str, *, resolution: int, batch_size: int
) -> tasks.Source:
    """Return the training or held-out pictures of a config; resolution 0: captions.

    Raises:
      ValueError: for settings that do not fit each other, or files that are not there.
    """
    paths = settings.paths
    if not paths:
        raise ValueError(
            "data.pictures.path: a folder of pictures, or of tar, parquet, TFRecord or "
            "ArrayRecord files, is required. Give --config.data.pictures.path=DIR."
        )
    if settings.weights and len(settings.weights) != len(paths):
        raise ValueError(
            f"data.pictures.weights: one for each of {len(paths)} paths is required, "
            f"got {settings.weights}."
        )
    tally = Tally(settings.max_bad)
    found = [
        one(settings, path, split, resolution, batch_size, tally) for path in paths
    ]
    if len(found) == 1:
        return found[0]
    if settings.buckets:
        raise ValueError(
            "data.pictures.buckets: of one path alone; a batch has one shape, and a "
            "mixture draws each example by itself."
        )
    weights = settings.weights or tuple(float(len(task.contents)) for task in found)
    return tasks.Mixture(name="pictures", sources=tuple(found), weights=weights)


def one(
    settings: PictureSettings,
    path: str,
    split: str,
    resolution: int,
    batch_size: int,
    tally: Tally,
) -> PictureTask:
    """Return the pictures of one path."""
    fields = records.Fields(settings.picture, settings.caption)
    shards = shards_of(path, settings.split, settings.index, fields)
    rule = collection.Filter(
        min_side=settings.min_side or resolution,  # resolution 0: no pictures
        max_aspect=settings.max_aspect,
        min_caption=settings.min_caption,
        max_caption=settings.max_caption,
        column=settings.column,
        at_least=settings.at_least,
    )
    kept, _ = collection.taken(list(shards), rule, settings.heldout, split)
    divided = None
    if settings.buckets and split == "train":
        divided = buckets.divide(kept.sizes(), settings.buckets, batch_size)
    return PictureTask(
        name=path,
        contents=kept,
        crop=settings.crop if split == "train" else "center",
        shuffle=settings.shuffle,
        caption_drop=settings.caption_drop if split == "train" else 0.0,
        shapes=divided,
        tally=tally,
        has_image=resolution > 0,
    )


@functools.lru_cache(4)
def shards_of(
    path: str, split: str, folder: str, fields: records.Fields
) -> tuple[index.Shard, ...]:
    """Return a data set's shards with their tables, made on the first call."""
    kind, names = finding.find(path, split)
    return tuple(index.tables(kind, names, folder or index_folder(path, names), fields))


def index_folder(path: str, names: list[str]) -> str:
    """Return where the tables of a data set lie if nothing else is said: within it."""
    local = not path.startswith(finding.tfds.SCHEME)
    if local and records.filesystem(path)[0].isdir(records.filesystem(path)[1]):
        return f"{path.rstrip('/')}/{index.FOLDER}"
    return f"{names[0].rpartition('/')[0] or '.'}/{index.FOLDER}"
