"""Folders of picture files, with captions beside them or in one table.

a.jpg with a.txt (each line is a caption) or a.json; or metadata.jsonl, metadata.csv or
captions.csv in the folder, with a column that names the file ("file_name", as Hugging
Face's imagefolder has it). Each folder of the tree is a shard.
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
HELD = 8  # folders whose lists are kept in memory


def shards(root: str) -> list[str]:
    """Return the folders of the tree that hold pictures."""
    fs, path = records.filesystem(root)
    if not fs.isdir(path):
        return []
    pictures = records.files(root, SUFFIXES + tuple(s.upper() for s in SUFFIXES))
    return sorted({posixpath.dirname(name) for name in pictures})


@functools.lru_cache(HELD)
def pictures(shard: str) -> list[str]:
    """Return the names of a folder's pictures, sorted."""
    fs, path = records.filesystem(shard)
    names = (posixpath.basename(name) for name in fs.ls(path, detail=False))
    return sorted(n for n in names if n.lower().endswith(SUFFIXES) and n[0] != ".")


@functools.lru_cache(HELD)
def table(shard: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a folder's table by file name, one row's captions joined."""
    fs, path = records.filesystem(shard)
    rows: dict[str, dict[str, Any]] = {}
    for name in TABLES:
        where = posixpath.join(path, name)
        if not fs.exists(where):
            continue
        text = fs.cat_file(where).decode("utf-8-sig", errors="surrogateescape")
        for row in parsed(text, name.endswith(".csv")):
            file = records.pick(row, "", NAMES)
            if isinstance(file, str):
                add(rows, posixpath.basename(file), row)
        break
    return rows


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
            yield {k: number(v) for k, v in row.items() if k is not None}
        return
    for line in text.splitlines():
        values = records.from_json(line.encode(errors="surrogateescape"))
        if values:
            yield values


def number(text: Any) -> Any:
    """Return a cell as a number if it is one."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def scan(
    shard: str, fields: records.Fields
) -> Iterator[tuple[records.Place, records.Record]]:
    """Yield every picture's record; its place is its number in the sorted list."""
    pictures.cache_clear()
    table.cache_clear()
    for i in range(len(pictures(shard))):
        yield (i,), read(shard, (i,), fields)


def read(shard: str, place: records.Place, fields: records.Fields) -> records.Record:
    """Read the record at a place."""
    name = pictures(shard)[place[0]]
    fs, path = records.filesystem(shard)
    stem = posixpath.splitext(name)[0]
    values = dict(table(shard).get(name, {}))
    for beside in (f"{stem}.json", f"{name}.json"):
        if beside in beside_pictures(shard):
            values |= records.from_json(fs.cat_file(posixpath.join(path, beside)))
    values = {k: v for k, v in values.items() if k not in records.PICTURES}
    record = records.from_fields(posixpath.join(shard, name), values, fields)
    captions = record.captions
    if f"{stem}.txt" in beside_pictures(shard) and not fields.caption:
        text = fs.cat_file(posixpath.join(path, f"{stem}.txt"))
        captions = tuple(text.splitlines())
    data = fs.cat_file(posixpath.join(path, name))
    return record._replace(picture=data, captions=captions)


@functools.lru_cache(HELD)
def beside_pictures(shard: str) -> frozenset[str]:
    """Return the names of a folder's .txt and .json files."""
    fs, path = records.filesystem(shard)
    names = (posixpath.basename(name) for name in fs.ls(path, detail=False))
    return frozenset(n for n in names if n.endswith((".txt", ".json")))
