"""Look at every record of a data set: what is broken, how large, how long."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import Any

import numpy as np

from imagen_jax.data import index, pictures, records

SHOWN = 20  # bad records that a report names
CHUNK = 64  # records that a thread decodes before it reports
PERCENTILES = (1, 10, 50, 90, 99)


@dataclasses.dataclass
class Report:
    """What `check` found: records, and those that cannot be used by cause."""

    total: int = 0
    causes: Counter[str] = dataclasses.field(default_factory=Counter)
    named: list[str] = dataclasses.field(default_factory=list)

    @property
    def bad(self) -> int:
        """How many cannot be used."""
        return self.causes.total()


def verdict(shard: index.Shard, row: int) -> pictures.BadExample | None:
    """Return why a record cannot be used, after decoding all of it, or None."""
    try:
        record = shard.record(row)
        records.texts(record)
        pictures.decode(record.picture)
    except pictures.BadExample as error:
        return error
    return None


def check(
    shards: Iterable[index.Shard],
    *,
    threads: int = 2,
    report: Callable[[int], object] | None = None,
) -> Report:
    """Decode every record and mark in the tables which are bad.

    A shard that was checked before, and has not changed, is not decoded again.

    Args:
      shards: with their tables, which are written anew.
      threads: records decoded side by side.
      report: told how many more records are done.
    """
    found = Report()
    with futures.ThreadPoolExecutor(threads) as pool:
        for shard in shards:
            found.total += len(shard.table)
            if not shard.table["checked"].all():
                table = np.array(shard.table)
                errors = decoded(pool, shard, report)
                for row, error in errors.items():
                    table["cause"][row] = index.CAUSES.index(error.cause)
                table["checked"] = 1
                index.save(shard.path, table)
            else:
                table, errors = shard.table, {}
                if report is not None:
                    report(len(table))
            for row in np.flatnonzero(table["cause"]).tolist():
                cause = index.CAUSES[table["cause"][row]]
                found.causes[cause] += 1
                if len(found.named) < SHOWN:
                    error = errors.get(row) or verdict(shard, row)
                    detail = error.detail if error is not None else ""
                    found.named.append(f"{cause}: {shard.key(row)}: {detail}")
    return found


def decoded(
    pool: futures.Executor,
    shard: index.Shard,
    report: Callable[[int], object] | None,
) -> dict[int, pictures.BadExample]:
    """Decode all records of a shard; return those that cannot be."""

    def some(start: int) -> dict[int, pictures.BadExample]:
        rows = range(start, min(start + CHUNK, len(shard.table)))
        errors = ((row, verdict(shard, row)) for row in rows)
        return {row: error for row, error in errors if error is not None}

    found = {}
    starts = range(0, len(shard.table), CHUNK)
    for start, errors in zip(starts, pool.map(some, starts), strict=True):
        found.update(errors)
        if report is not None:
            report(min(CHUNK, len(shard.table) - start))
    return found


def stats(
    shards: Iterable[index.Shard],
    count_tokens: Callable[[list[str]], np.ndarray],
    sample: int = 2000,
) -> dict[str, Any]:
    """Summarise sizes, aspect ratios, captions and columns of the sound records.

    Args:
      shards: with their tables.
      count_tokens: texts -> numbers of tokens, end marks included.
      sample: records, evenly spread, whose captions are counted in tokens.
    """
    shards = [shard for shard in shards if len(shard.table)]
    tables = [shard.table for shard in shards]
    total = sum(len(table) for table in tables)
    sound = [np.flatnonzero(table["cause"] == 0) for table in tables]
    causes: Counter[str] = Counter()
    for table in tables:
        causes.update(index.CAUSES[cause] for cause in table["cause"] if cause)

    def column(name: str) -> np.ndarray:
        parts = [
            table[name][rows]
            for table, rows in zip(tables, sound, strict=True)
            if name in (table.dtype.names or ())
        ]
        values = np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
        return values[np.isfinite(values)]

    width, height = column("width"), column("height")
    names = sorted({n for t in tables for n in t.dtype.names or () if ":" in n})
    pairs = [(s, int(r)) for s, rows in zip(shards, sound, strict=True) for r in rows]
    step = max(1, len(pairs) // sample)
    texts = [text for s, r in pairs[::step] for text in captions(s, r)]
    return {
        "records": total,
        "sound": len(pairs),
        "bad": dict(causes),
        "shards": len(shards),
        "shorter side": spread(np.minimum(width, height)),
        "aspect ratio": spread(width / np.maximum(height, 1)),
        "captions a picture": spread(column("captions")),
        "tokens a caption": spread(count_tokens(texts)) if texts else {},
        **{name.removeprefix("column:"): spread(column(name)) for name in names},
    }


def captions(shard: index.Shard, row: int) -> list[str]:
    """Return a record's captions, none where they cannot be read."""
    try:
        return records.texts(shard.record(row))
    except pictures.BadExample:
        return []


def spread(values: np.ndarray) -> dict[str, float]:
    """Return some percentiles, the least and the most."""
    if not len(values):
        return {}
    points = (0, *PERCENTILES, 100)
    names = ("min", *(f"p{p}" for p in PERCENTILES), "max")
    found = np.percentile(values, points)
    return {n: round(float(v), 3) for n, v in zip(names, found, strict=True)}
