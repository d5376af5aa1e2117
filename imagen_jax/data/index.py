"""What lies where in a data set: a table a shard, made once, read ever after.

One structured array a shard, in a .npy file that is mapped into memory: places, sizes
and lengths of captions, by which examples are found and filtered without opening them.
A table is made anew when its shard's size or time of change is another.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from types import ModuleType
from typing import Any

import numpy as np

from imagen_jax.data import pictures, records

VERSION = 1
FOLDER = ".imagen_jax"
CAUSES = ("", *pictures.CAUSES)
# What every table has beside its format's places and the user's columns.
COMMON = [
    ("width", np.int32),
    ("height", np.int32),
    ("captions", np.int16),
    ("longest", np.int32),
    ("cause", np.uint8),
    ("checked", np.uint8),
]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file or folder of records, and the table of what is in it."""

    kind: ModuleType
    name: str
    fields: records.Fields
    table: np.ndarray
    path: str  # of the table

    def place(self, row: int) -> records.Place:
        """Return where the format finds a record."""
        return tuple(int(value) for value in self.table["place"][row])

    def key(self, row: int) -> str:
        """Return how messages call a record: by its file's name where it has one."""
        try:
            return self.record(row).key
        except pictures.BadExample:
            return f"{self.name}, record {row}"

    def record(self, row: int) -> records.Record:
        """Read a record.

        Raises:
          BadExample: if its file cannot be read there.
        """
        try:
            return self.kind.read(self.name, self.place(row), self.fields)
        except pictures.BadExample:
            raise
        except Exception as error:  # each file system and format has its own
            text = f"{self.name}, record {row}: {type(error).__name__}: {error}"
            raise pictures.BadExample("unreadable", text) from error


def fingerprint(kind: ModuleType, shard: str, fields: records.Fields) -> str:
    """Return a hash that changes when the shard, or what is read of it, does."""
    fs, path = records.filesystem(shard)
    entries = [fs.info(path)]
    if fs.isdir(path):
        entries = sorted(fs.ls(path, detail=True), key=lambda entry: entry["name"])
    for other in getattr(kind, "depends", lambda shard: [])(shard):
        entries.append(fs.info(records.filesystem(other)[1]))
    what = [
        (entry["name"], entry.get("size"), changed(entry))
        for entry in entries
        if FOLDER not in entry["name"] and entry["type"] == "file"
    ]
    text = json.dumps([VERSION, kind.__name__, shard, fields, what], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def changed(entry: Mapping[str, Any]) -> str:
    """Return when a file changed, or what else its file system tells of that."""
    names = ("mtime", "etag", "ETag", "updated", "LastModified")
    return next((str(entry[name]) for name in names if name in entry), "")


def measured(place: records.Place, record: records.Record) -> dict[str, Any]:
    """Return a record's line of the table: its header is read, not its pixels."""
    line = {"place": place, "width": 0, "height": 0, "captions": 0, "longest": 0}
    cause = ""
    try:
        line["width"], line["height"] = pictures.size(record.picture)
        captions = records.texts(record)
        line["captions"] = len(captions)
        line["longest"] = max(len(text) for text in captions)
    except pictures.BadExample as error:
        cause = error.cause
    columns = {f"column:{name}": value for name, value in record.columns.items()}
    return {**line, "cause": CAUSES.index(cause), **columns}


def scan(kind: ModuleType, shard: str, fields: records.Fields) -> np.ndarray:
    """Make a shard's table by reading it from its beginning to its end."""
    lines = []
    try:
        for place, record in kind.scan(shard, fields):
            lines.append(measured(place, record))
    except Exception:  # a damaged file; what was found before counts
        width = len(lines[0]["place"]) if lines else 1
        lines.append({"place": (0,) * width, "cause": CAUSES.index("unreadable")})
    width = len(lines[0]["place"]) if lines else 1
    columns = sorted({k for line in lines for k in line if k.startswith("column:")})
    kinds = [("place", np.int64, (width,)), *COMMON]
    kinds += [(name, np.float32) for name in columns]
    table = np.zeros(len(lines), kinds)
    for name in columns:
        table[name] = np.nan
    for row, line in enumerate(lines):
        for name, value in line.items():
            table[name][row] = value
    return table


def stored(folder: str, shard: str, mark: str) -> str:
    """Return the name of a shard's table."""
    base = os.path.basename(shard.rstrip("/")) or "root"
    return f"{folder}/{base}.{mark}.npy"


def load(path: str) -> np.ndarray | None:
    """Read a table, or nothing if there is none that is whole."""
    if not records.exists(path):
        return None
    try:
        if "://" not in path:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return records.read_array(path)
    except (ValueError, EOFError, OSError):
        return None


def save(path: str, table: np.ndarray) -> None:
    """Write a table; none is ever half written.

    Raises:
      ValueError: if that cannot be, saying where else.
    """
    try:
        records.write_array(path, table)
    except OSError as error:
        raise ValueError(
            "data: the table of a data set's records cannot be written to "
            f"{os.path.dirname(path)} ({error}). Give a folder that can be written, "
            "--config.data.pictures.index=DIR (--index DIR)."
        ) from error


def tables(
    kind: ModuleType,
    shards: list[str],
    folder: str,
    fields: records.Fields,
    *,
    threads: int = 8,
    report: Callable[[int, int], object] | None = None,
) -> Iterator[Shard]:
    """Yield every shard with its table, made where it is missing or old.

    Args:
      kind: the format.
      shards: its files.
      folder: where tables lie.
      fields: which fields of a record are read.
      threads: shards looked at side by side.
      report: told (done, of how many) after each.
    """

    def one(shard: str) -> Shard:
        path = stored(folder, shard, fingerprint(kind, shard, fields))
        table = load(path)
        if table is None:
            save(path, scan(kind, shard, fields))
            table = load(path)
        assert table is not None
        return Shard(kind, shard, fields, table, path)

    with futures.ThreadPoolExecutor(threads) as pool:
        for done, shard in enumerate(pool.map(one, shards), 1):
            if report is not None:
                report(done, len(shards))
            yield shard
