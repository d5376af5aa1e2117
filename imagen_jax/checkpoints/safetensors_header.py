"""The table of contents of a safetensors file, checked before anything is allocated.

The format (https://github.com/huggingface/safetensors): eight bytes with the header's
length, little-endian; a JSON header {name: {dtype, shape, data_offsets}} with string
metadata under "__metadata__"; the arrays' bytes without gaps.
"""

import json
import math
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("bool"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 20_000_000  # bytes, parsed in under half a gigabyte; real ones: 5 MB
MAX_NUMBERS = 2**60  # of an array, zeros aside; numpy cannot shape more
MAX_RANK = 32  # numpy 1's limit
METADATA = "__metadata__"
CHECKSUM = "imagen_jax.crc32"
PICKLES = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"}

Path = str | os.PathLike


class Entry(NamedTuple):
    """One array of a file: where its bytes lie after the header."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """A file's table of contents, checked; entries in the order of their bytes."""

    entries: list[Entry]
    metadata: dict[str, str]
    checksum: int | None
    data_begin: int


def layout(
    path: Path, arrays: Mapping[str, tuple[np.dtype, Sequence[int]]]
) -> list[Entry]:
    """Where arrays of these types and shapes lie in a file.

    Raises:
      ValueError: for a type that the format lacks.
    """
    entries, offset = [], 0
    # Widest first keeps every array aligned to its own element size.
    for name in sorted(arrays, key=lambda n: (-np.dtype(arrays[n][0]).itemsize, n)):
        dtype = np.dtype(arrays[name][0]).newbyteorder("<")
        if dtype not in NAMES or name == METADATA:
            raise ValueError(
                f"safetensors: cannot store {name!r} of type {dtype} in {path}."
            )
        shape = tuple(int(n) for n in arrays[name][1])
        end = offset + math.prod(shape) * dtype.itemsize
        entries.append(Entry(name, dtype, shape, offset, end))
        offset = end
    return entries


def read(path: Path, file: IO[bytes], size: int) -> Header:
    """The header of a file that stands at its beginning.

    Args:
      path: for messages.
      file: opened for reading bytes.
      size: of the whole file in bytes.

    Raises:
      ValueError: if it is of another format, truncated or damaged.
    """
    start = file.read(8)
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] <= b"\x05"):
        # A real header would be over 64 KB long here, and JSON in its place is rare.
        following = file.read(1)
        if following != b"{":
            raise pickle(pathlib.Path(path))
        file.seek(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise damaged(path, "its first bytes give no possible header length")
    try:
        table = json.loads(file.read(length), object_pairs_hook=unique)
        if not isinstance(table, dict):
            raise ValueError("the header is no object")
        metadata = _checked_metadata(table.pop(METADATA, {}))
        entries = sorted(
            (_entry(name, value) for name, value in table.items()),
            key=lambda e: (e.begin, e.end),
        )
        checksum = metadata.pop(CHECKSUM, None)
        crc = None if checksum is None else int(checksum, 16)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"bad header ({error})") from error
    offset = 0
    for entry in entries:
        if entry.begin != offset:
            raise damaged(path, f"a gap or overlap before {entry.name!r}")
        offset = entry.end
    if offset != size - 8 - length:
        raise damaged(
            path, f"{size - 8 - length} bytes of data where {offset} are announced"
        )
    return Header(entries, metadata, crc, 8 + length)


def encode(entries: Sequence[Entry], metadata: Mapping[str, str], crc: int) -> bytes:
    """The header's bytes with their length; as long for any checksum."""
    table: dict[str, Any] = {METADATA: {**metadata, CHECKSUM: f"{crc:08x}"}}
    for name, dtype, shape, begin, end in entries:
        table[name] = {
            "dtype": NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def crc_of(entries: Sequence[Entry], metadata: Mapping[str, str]) -> int:
    """The checksum of a header, from which that of the arrays' bytes goes on."""
    named = [(e.name, NAMES[e.dtype], e.shape, e.begin) for e in entries]
    return zlib.crc32(repr((named, sorted(metadata.items()))).encode())


def _entry(name: str, value: Any) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} lacks dtype, shape or data_offsets")
    shape, offsets = value["shape"], value["data_offsets"]
    # `type is int`, since JSON's true would pass as an integer.
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or len(numbers) > MAX_RANK:
            raise ValueError(f"{name!r} has a bad shape or offset")
        if not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError(f"{name!r} has a bad shape or offset")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise ValueError(f"{name!r} has the unknown type {value['dtype']!r}")
    if math.prod(n for n in shape if n) > MAX_NUMBERS:
        raise ValueError(f"{name!r} has an impossible shape")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * (
        dtype.itemsize
    ):
        raise ValueError(f"the size of {name!r} does not match its shape")
    return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _checked_metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        isinstance(s, str) for kv in value.items() for s in kv
    ):
        raise ValueError("metadata must be strings")
    return value


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `json.loads(object_pairs_hook=)`, without a name twice."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands there twice")
    return table


def damaged(path: Path, why: str) -> ValueError:
    """The error of a file that cannot be trusted."""
    return ValueError(
        f"safetensors: {path} is damaged or not a safetensors file: {why}. "
        f"Copy or download it again."
    )


def pickle(path: Path) -> ValueError:
    """The error of a file that could run code."""
    return ValueError(
        f"safetensors: {path} is a pickle, which can run code when read. Use the "
        f"model's .safetensors file, or convert it with safetensors.torch.save_file."
    )
