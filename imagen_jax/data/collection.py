"""The records of a data set that pass a filter, in an order that is a function.

Every record has a number: shards in order, records in order. What is trained on is an
array of numbers a shard; the order in an epoch is a permutation keyed by (seed, epoch),
of all records at once, or of windows of neighbours for files that are read quickly only
from one end to the other.
"""

import bisect
import dataclasses
import functools
import itertools
from typing import NamedTuple

import numpy as np

from imagen_jax.data import index, order, pictures

SHUFFLES = ("global", "window")
WINDOW = 1 << 13
WINDOW_SALT = 0x3157


class NothingLeft(ValueError):
    """No record of a data set passes, or none is held out."""


class Filter(NamedTuple):
    """Which records to take; 0 and "" ask for nothing.

    Attributes:
      min_side: the shorter side in pixels is at least this.
      max_aspect: the longer side is at most so many times the shorter.
      min_caption, max_caption: characters of the longest caption.
      column: a numeric field of the records, as a score or a similarity.
      at_least: the least of it; records without it do not pass.
    """

    min_side: int = 0
    max_aspect: float = 0.0
    min_caption: int = 0
    max_caption: int = 0
    column: str = ""
    at_least: float = 0.0

    def passes(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """Return for each reason which records pass, in the order of asking."""
        short = np.minimum(table["width"], table["height"])
        long = np.maximum(table["width"], table["height"])
        yes = np.ones(len(table), bool)
        reasons = {"sound": table["cause"] == 0, "min_side": short >= self.min_side}
        if self.max_aspect:
            reasons["max_aspect"] = long <= self.max_aspect * short
        if self.min_caption:
            reasons["min_caption"] = table["longest"] >= self.min_caption
        if self.max_caption:
            reasons["max_caption"] = table["longest"] <= self.max_caption
        if self.column:
            name = f"column:{self.column}"
            known = name in (table.dtype.names or ())
            reasons["column"] = table[name] >= self.at_least if known else ~yes
        return reasons


@dataclasses.dataclass(frozen=True)
class Collection:
    """Records of several shards, by number.

    Attributes:
      shards: with their tables.
      kept: of each shard the rows that are taken, sorted.
    """

    shards: tuple[index.Shard, ...]
    kept: tuple[np.ndarray, ...]

    @functools.cached_property
    def starts(self) -> list[int]:
        """The number of each shard's first record, and of all."""
        return [0, *itertools.accumulate(len(rows) for rows in self.kept)]

    def __len__(self) -> int:
        return self.starts[-1]

    def locate(self, number: int) -> tuple[index.Shard, int]:
        """Return the shard and the row of a record."""
        which = bisect.bisect_right(self.starts, number) - 1
        return self.shards[which], int(self.kept[which][number - self.starts[which]])

    def size(self, number: int) -> pictures.Size:
        """Return the size of a record's picture, from the table."""
        shard, row = self.locate(number)
        line = shard.table[row]
        return pictures.Size(int(line["width"]), int(line["height"]))

    def sizes(self) -> np.ndarray:
        """Return all pictures' (width, height), int32 [N, 2]."""
        parts = [
            np.stack([s.table["width"][rows], s.table["height"][rows]], axis=1)
            for s, rows in zip(self.shards, self.kept, strict=True)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, 2), np.int32)


def place_of(position: int, size: int, key: int, shuffle: str) -> int:
    """Return the number of the record at a position of an epoch; a permutation.

    With "window", windows of 8192 neighbours come in a random order, each shuffled in
    itself.
    """
    if shuffle == "global":
        return order.permute(position, size, key)
    whole, rest = divmod(size, WINDOW)
    # The last, shorter window comes last, so that places are arithmetic.
    which, inside = divmod(position, WINDOW)
    length = WINDOW if which < whole else rest
    if which < whole:
        which = order.permute(which, whole, key)
    inside = order.permute(inside, length, order.digest(key, which, WINDOW_SALT))
    return which * WINDOW + inside


def taken(
    shards: list[index.Shard], rule: Filter, heldout: float, split: str
) -> tuple[Collection, dict[str, int]]:
    """Filter shards and divide training from held-out records.

    Args:
      shards: with their tables.
      rule: what passes.
      heldout: share of the records that training never sees, by a hash of the shard's
        name and the row: more shards leave the division of the others as it was.
      split: "train" or "heldout".

    Returns:
      The collection, and how many records each reason has refused first.

    Raises:
      NothingLeft: if no record is, naming the reasons.
    """
    kept, refused, total = [], {}, 0
    for shard in shards:
        good = np.ones(len(shard.table), bool)
        total += len(good)
        for reason, passes in rule.passes(shard.table).items():
            refused[reason] = refused.get(reason, 0) + int((good & ~passes).sum())
            good &= passes
        aside = fractions(shard.name, len(good)) < heldout
        rows = np.flatnonzero(good & (aside == (split == "heldout")))
        kept.append(rows.astype(np.int32))
    found = Collection(tuple(shards), tuple(kept))
    if not len(found):
        why = ", ".join(f"{name} {n}" for name, n in refused.items() if n)
        raise NothingLeft(
            f"data: none of {total} records is left for {split!r}"
            + (f"; refused by {why}" if why else "")
            + ". `imagen-jax data stats` shows what there is."
        )
    return found, refused


def fractions(shard: str, rows: int) -> np.ndarray:
    """Return a hash in [0, 1) of each row of a shard; `order.mix`, all at once."""
    name = shard.rstrip("/").rpartition("/")[2]
    first = int(order.fraction(f"heldout: {name}") * (1 << 56))
    values = np.arange(rows, dtype=np.uint64) * np.uint64(order.GOLDEN)
    values += np.uint64(first)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    values ^= values >> np.uint64(31)
    return (values >> np.uint64(11)).astype(np.float64) / (1 << 53)
