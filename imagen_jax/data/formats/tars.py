"""Tar files of the WebDataset convention, as img2dataset writes them.

Members that share a name up to the first dot of its last part are one record:
000001.jpg, 000001.txt, 000001.json. They stand side by side.
"""

import struct
import tarfile
from collections.abc import Iterator
from typing import Any

from imagen_jax.data import records

SUFFIX = ".tar"
# A place is (offset, size) of each of these, both 0 where there is none.
PARTS = ("picture", "text", "json")
# Before a member's data stands its header, which begins with its name.
HEADER, NAME = tarfile.BLOCKSIZE, tarfile.LENGTH_NAME


def shards(files: list[str]) -> list[str]:
    """Return the tar files among some files."""
    return [name for name in files if name.endswith(SUFFIX)]


def part_of(suffix: str, fields: records.Fields) -> str:
    """Return which part of a record a member with this suffix is, "" for none."""
    if suffix == fields.picture or (not fields.picture and suffix in records.SUFFIXES):
        return "picture"
    if suffix in ("txt", "text", "caption") and fields.caption in ("", suffix):
        return "text"
    return "json" if suffix == "json" else ""


def members(shard: str) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, size) of a tar's files; a cut one ends at the cut."""
    fs, path = records.filesystem(shard)
    size = fs.size(path)
    with fs.open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.isfile():
                        end = member.offset_data + member.size
                        yield (
                            member.name,
                            member.offset_data,
                            min(end, size) - (member.offset_data),
                        )
        except (tarfile.TarError, struct.error, EOFError):
            return


def scan(
    shard: str, fields: records.Fields
) -> Iterator[tuple[records.Place, records.Record]]:
    """Yield every record with its place."""
    current, parts = None, {}
    for name, offset, size in members(shard):
        folder, slash, last = name.rpartition("/")
        stem, _, suffix = last.partition(".")
        key, part = folder + slash + stem, part_of(suffix.lower(), fields)
        if key != current and current is not None and parts:
            yield found(shard, parts, fields)
        if key != current:
            current, parts = key, {}
        if part:
            parts.setdefault(part, (offset, size))
    if parts:
        yield found(shard, parts, fields)


def found(
    shard: str, parts: dict[str, tuple[int, int]], fields: records.Fields
) -> tuple[records.Place, records.Record]:
    """Return the place and the record of some members."""
    place = tuple(number for part in PARTS for number in parts.get(part, (0, 0)))
    return place, read(shard, place, fields)


def read(shard: str, place: records.Place, fields: records.Fields) -> records.Record:
    """Read the record at a place; the members lie close together, so read once."""
    spans = [(place[2 * i], place[2 * i + 1]) for i in range(len(PARTS))]
    start = min(offset for offset, size in spans if size or offset) - HEADER
    end = max(offset + size for offset, size in spans)
    data = records.read_range(shard, start, end - start)
    picture, text, json = (data[o - start : o - start + s] for o, s in spans)
    values: dict[str, Any] = records.from_json(json) if json else {}
    captions = (text,) if text else ()
    name = data[:NAME].partition(b"\0")[0].decode(errors="replace")
    key = f"{shard}: {name.partition('.')[0] or name}"
    told = records.from_fields(key, values, fields)
    return told._replace(picture=picture, captions=captions or told.captions)
