"""A record: one picture's bytes, its captions and the user's other columns.

Each module of `formats/` finds the records of one kind of file. It offers

  shards(files) -> those of some files, or their folders, that hold records of its kind;
  scan(shard, fields) -> (place, record) of every record, in order;
  read(shard, place, fields) -> the record at a place.

A place is a tuple of integers by which the format finds a record at once; with the
table of places (`index`) every format is read at random.
"""

import io
import json
import os
import posixpath
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from fsspec.core import url_to_fs

from imagen_jax.data.pictures import BadExample

PICTURES = ("image", "jpg", "jpeg", "png", "webp", "picture", "img", "image/encoded")
CAPTIONS = (
    *("captions", "caption", "texts", "text", "txt", "prompt", "description"),
    *("captions/text", "caption/text"),
)
SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "jfif")

Place = tuple[int, ...]


class Record(NamedTuple):
    """One example as it lies in its file; nothing is checked yet.

    Attributes:
      key: how messages call it.
      picture: the bytes of its picture file; empty where it has none.
      captions: each in UTF-8, as bytes or text.
      columns: the numbers among its other fields, by name.
    """

    key: str
    picture: bytes
    captions: tuple[bytes | str, ...]
    columns: Mapping[str, float] = {}


class Fields(NamedTuple):
    """Which fields of a record to read; "" takes the first of the usual names."""

    picture: str = ""
    caption: str = ""


def texts(record: Record) -> list[str]:
    """Return a record's captions without outer blanks, empty ones left out.

    Raises:
      BadExample: if none is left, or one is no valid UTF-8.
    """
    found = []
    for caption in record.captions:
        if isinstance(caption, bytes):
            try:
                caption = caption.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise BadExample("bad_caption", f"{record.key}: {error}") from error
        caption = " ".join(caption.split())
        if not caption.isprintable():
            raise BadExample("bad_caption", f"{record.key}: control characters")
        if caption:
            found.append(caption)
    if not found:
        raise BadExample("no_caption", record.key)
    return found


def from_fields(key: str, values: Mapping[str, Any], fields: Fields) -> Record:
    """Make a record of named values, as tables and JSON have them."""
    picture = pick(values, fields.picture, PICTURES)
    if isinstance(picture, Mapping):  # Hugging Face's {"bytes": ..., "path": ...}
        picture = picture.get("bytes")
    if isinstance(picture, Sequence) and not isinstance(picture, bytes | str):
        picture = picture[0] if picture else None
    captions = pick(values, fields.caption, CAPTIONS)
    return Record(
        key,
        picture if isinstance(picture, bytes) else b"",
        as_captions(captions),
        numbers(values),
    )


def pick(values: Mapping[str, Any], name: str, usual: Sequence[str]) -> Any:
    """Return the field of a name, or of the first of the usual names; else None."""
    names = (name,) if name else usual
    return next((values[n] for n in names if values.get(n) is not None), None)


def as_captions(value: Any) -> tuple[bytes | str, ...]:
    """Return one caption or several as a tuple, whatever a file had for them."""
    if value is None:
        return ()
    if isinstance(value, bytes | str):
        return (value,)
    if isinstance(value, Mapping):  # TFDS: {"text": [...]}
        return as_captions(pick(value, "", CAPTIONS))
    if isinstance(value, Sequence):
        return tuple(text for part in value for text in as_captions(part))
    return (str(value),)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the fields that are numbers, or texts of numbers as CSV has them."""
    found = {}
    for name, value in values.items():
        if isinstance(value, str) and len(value) < 32 and name not in CAPTIONS:
            try:
                found[name] = float(value)
            except ValueError:
                continue
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def from_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object; one that is none is empty."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def filesystem(path: str) -> tuple[Any, str]:
    """Return the file system of a local path or URL (gs://, s3://), and its path."""
    return url_to_fs(path)


def files(root: str) -> list[str]:
    """Return all files of a folder's tree, sorted; hidden ones left out.

    `root` may be one file itself, or a pattern with *.
    """
    fs, path = filesystem(root)
    if any(mark in path for mark in "*?["):
        found = fs.glob(path)
    elif fs.isdir(path):
        found = fs.find(path)
    else:
        found = [path] if fs.exists(path) else []
    kept = sorted(name for name in found if "/." not in name.removeprefix(path))
    return [fs.unstrip_protocol(name).removeprefix("file://") for name in kept]


def read_range(path: str, start: int, size: int) -> bytes:
    """Read `size` bytes of a file from `start` on; safe from many threads."""
    fs, name = filesystem(path)
    return fs.cat_file(name, start=start, end=start + size)


def exists(path: str) -> bool:
    """Return whether there is a file."""
    fs, name = filesystem(path)
    return fs.exists(name)


def read_bytes(path: str) -> bytes:
    """Read a whole file."""
    fs, name = filesystem(path)
    return fs.cat_file(name)


def write_bytes(path: str, data: bytes) -> None:
    """Write a file whole or not at all: under another name first."""
    fs, name = filesystem(path)
    fs.makedirs(posixpath.dirname(name), exist_ok=True)
    temporary = f"{name}.{os.getpid()}.{threading.get_ident()}.tmp"
    with fs.open(temporary, "wb") as file:
        file.write(data)
    fs.mv(temporary, name)


def write_array(path: str, array: np.ndarray) -> None:
    """Write a .npy file whole or not at all."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    write_bytes(path, file.getvalue())


def read_array(path: str) -> np.ndarray:
    """Read a .npy file.

    Raises:
      ValueError: if it is damaged.
    """
    return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
