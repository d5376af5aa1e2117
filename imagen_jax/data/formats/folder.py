"""Folders of picture files, with captions beside them or in one table.

a.jpg with a.txt (each line is a caption) or a.json; or metadata.jsonl, metadata.csv or
captions.csv in the folder or above it, with a column that names the file from there
("file_name", as Hugging Face's imagefolder has it). Each folder of the tree is a shard.
"""

import csv
import functools
import io
import posixpath
from collections.abc import Iterator
from typing import Any

from imagen_jax.data import records

TABLES = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")
NAMES = ("file_name", "filename", "file", "image", "path", "image_path", "name")
SUFFIXES = tuple(f".{suffix}" for suffix in records.SUFFIXES)
HELD = 4096  # folders whose lists are kept in memory
ABOVE = 3  # folders above one in which its table may lie


def shards(files: list[str]) -> list[str]:
    """Return the folders of the pictures among some files."""
    pictures = (name for name in files if name.lower().endswith(SUFFIXES))
    return sorted({posixpath.dirname(name) for name in pictures})


@functools.lru_cache(HELD)
def listed(shard: str) -> tuple[list[str], frozenset[str]]:
    """Return the names of a folder's pictures, sorted, and of all its files."""
    fs, path = records.filesystem(shard)
    names = [posixpath.basename(name) for name in fs.ls(path, detail=False)]
    found = (n for n in names if n.lower().endswith(SUFFIXES) and n[0] != ".")
    return sorted(found), frozenset(names)


def depends(shard: str) -> list[str]:
    """Return the tables that may tell about a folder's pictures: the nearest first."""
    found, folder = [], shard
    for _ in range(1 + ABOVE):
        paths = (posixpath.join(folder, name) for name in TABLES)
        found += [path for path in paths if records.exists(path)][:1]
        folder = posixpath.dirname(folder)
        if not folder.strip("/") or folder.endswith(":"):
            break
    return found


@functools.lru_cache(HELD)
def tables(shard: str) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """Return (the folder's path from the table, the table's rows by file)."""
    return [
        (posixpath.relpath(shard, posixpath.dirname(path)), rows_of(path))
        for path in depends(shard)
    ]


@functools.lru_cache(HELD)
def rows_of(path: str) -> dict[str, dict[str, Any]]:
    """Return a table's rows by the file that they name, one row's captions joined."""
    text = records.read_bytes(path).decode("utf-8-sig", errors="surrogateescape")
    rows: dict[str, dict[str, Any]] = {}
    for row in parsed(text, path.endswith(".csv")):
        file = records.pick(row, "", NAMES)
        if isinstance(file, str):
            add(rows, posixpath.normpath(file), row)
    return rows


def told(shard: str, name: str) -> dict[str, Any]:
    """Return what the nearest table that knows a picture tells about it."""
    for below, rows in tables(shard):
        found = rows.get(posixpath.normpath(posixpath.join(below, name)))
        if found is not None:
            return found
    return {}


def add(rows: dict[str, dict[str, Any]], file: str, row: dict[str, Any]) -> None:
    """Add a row; where a file has several, as COCO's do, their captions are listed."""
    if file not in rows:
        rows[file] = row
        return
    for name in records.CAPTIONS:
        if name in row:
            before = rows[file].get(name)
            rows[file][name] = [*records.as_captions(before), row[name]]


def parsed(text: str, is_csv: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or JSON-lines table; bad lines are left out."""
    if is_csv:
        for row in csv.DictReader(io.StringIO(text)):
            yield {k: v for k, v in row.items() if k is not None and v is not None}
        return
    for line in text.splitlines():
        values = records.from_json(line.encode(errors="surrogateescape"))
        if values:
            yield values


def scan(
    shard: str, fields: records.Fields
) -> Iterator[tuple[records.Place, records.Record]]:
    """Yield every picture's record; its place is its number in the sorted list."""
    for i in range(len(listed(shard)[0])):
        yield (i,), read(shard, (i,), fields)


def read(shard: str, place: records.Place, fields: records.Fields) -> records.Record:
    """Read the record at a place."""
    pictures, names = listed(shard)
    name = pictures[place[0]]
    stem = posixpath.splitext(name)[0]
    values = dict(told(shard, name))
    for beside in (f"{stem}.json", f"{name}.json"):
        if beside in names:
            data = records.read_bytes(posixpath.join(shard, beside))
            values |= records.from_json(data)
    values = {k: v for k, v in values.items() if k not in records.PICTURES}
    record = records.from_fields(posixpath.join(shard, name), values, fields)
    captions = record.captions
    if f"{stem}.txt" in names and not fields.caption:
        text = records.read_bytes(posixpath.join(shard, f"{stem}.txt"))
        captions = tuple(text.splitlines())
    data = records.read_bytes(posixpath.join(shard, name))
    return record._replace(picture=data, captions=captions)
