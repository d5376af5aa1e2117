"""Safetensors files: arrays by name, read without executing anything.

The format (https://github.com/huggingface/safetensors): eight bytes with the header's
length, little-endian; a JSON header {name: {dtype, shape, data_offsets}} with string
metadata under "__metadata__"; the arrays' bytes without gaps. It is read here rather
than by its library so that bfloat16 stays a numpy array and every kind of damage is
one clear line. Files written here also carry a checksum, so that a flipped bit is seen.
"""

import io
import json
import math
import os
import pathlib
import tempfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

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
MAX_HEADER = 100_000_000  # bytes; the limit of the format's own library
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


def save(
    path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays by name; the file appears whole or not at all.

    Args:
      path: of the file, which is replaced.
      arrays: numpy or JAX arrays; for a tree of them see `flatten`.
      metadata: strings to store beside them.

    Raises:
      ValueError: for an array of a type the format lacks, metadata that is not
        strings, or a folder that cannot be written.
    """
    path = pathlib.Path(path)
    # Widest first keeps every array aligned to its own element size.
    order = sorted(arrays, key=lambda n: (-np.dtype(arrays[n].dtype).itemsize, n))
    entries, offset = [], 0
    for name in order:
        dtype = np.dtype(arrays[name].dtype).newbyteorder("<")
        if dtype not in NAMES or name == METADATA:
            raise ValueError(
                f"safetensors: cannot store {name!r} of type {dtype} in {path}."
            )
        shape = tuple(int(n) for n in arrays[name].shape)
        end = offset + math.prod(shape) * dtype.itemsize
        entries.append(Entry(name, dtype, shape, offset, end))
        offset = end
    metadata = dict(metadata or {})
    if not all(isinstance(s, str) for kv in metadata.items() for s in kv):
        raise ValueError(f"safetensors: metadata of {path} must be strings.")
    try:
        _write(path, entries, arrays, metadata)
    except OSError as error:
        raise ValueError(f"safetensors: cannot write {path}: {error}.") from error


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a file: (arrays by name, metadata).

    Raises:
      ValueError: if the file is missing, of another format, truncated or damaged.
    """
    with _opened(path) as file:
        header = _read_header(path, file)
        crc = _header_crc(header.entries, header.metadata)
        arrays = {}
        for entry in header.entries:
            data = np.empty(entry.end - entry.begin, np.uint8)
            if file.readinto(data.data) != data.size:
                raise _damaged(path, f"{entry.name!r} is cut short")
            if header.checksum is not None:
                crc = zlib.crc32(data.data, crc)
            if entry.dtype == np.bool_ and (data > 1).any():
                raise _damaged(path, f"{entry.name!r} holds a byte that is no bool")
            arrays[entry.name] = data.view(entry.dtype).reshape(entry.shape)
        if header.checksum is not None and crc != header.checksum:
            raise _damaged(path, "its checksum does not match")
    return arrays, header.metadata


def read_names(path: Path) -> list[str]:
    """The names of a file's arrays, sorted, without reading them.

    Raises:
      ValueError: as `load` does.
    """
    with _opened(path) as file:
        return sorted(entry.name for entry in _read_header(path, file).entries)


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping as {"a/b/c": leaf}.

    Raises:
      ValueError: for a key that is not a string, is empty, or contains "/".
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise ValueError(
                f"flatten: keys must be non-empty strings without '/', got {key!r}."
            )
        if isinstance(value, Mapping):
            flat.update({f"{key}/{k}": v for k, v in flatten(value).items()})
        else:
            flat[key] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`.

    Raises:
      ValueError: if one name is the beginning of another ("a" and "a/b").
    """
    tree: dict[str, Any] = {}
    leaves = set(flat)
    for name, value in flat.items():
        *folders, last = name.split("/")
        node = tree
        for depth, folder in enumerate(folders, start=1):
            if "/".join(folders[:depth]) in leaves:
                raise ValueError(
                    f"unflatten: {'/'.join(folders[:depth])!r} is both an array and "
                    f"the folder of {name!r}."
                )
            node = node.setdefault(folder, {})
        node[last] = value
    return tree


def _write(path, entries, arrays, metadata) -> None:
    crc = _header_crc(entries, metadata)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            # The checksum's place is fixed, so that it can be filled in afterwards.
            header = _encode_header(entries, metadata, 0)
            file.write(header)
            for entry in entries:
                array = np.asarray(arrays[entry.name]).astype(entry.dtype, copy=False)
                data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                crc = zlib.crc32(data.data, crc)
                file.write(data.data)
            file.seek(0)
            file.write(_encode_header(entries, metadata, crc))
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _encode_header(entries: list[Entry], metadata: dict[str, str], crc: int) -> bytes:
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


def _header_crc(entries: list[Entry], metadata: dict[str, str]) -> int:
    named = [(e.name, NAMES[e.dtype], e.shape, e.begin) for e in entries]
    return zlib.crc32(repr((named, sorted(metadata.items()))).encode())


def _opened(path: Path) -> io.BufferedReader:
    path = pathlib.Path(path)
    if path.suffix in PICKLES:
        raise _pickle(path)
    if not path.exists():
        raise ValueError(f"safetensors: there is no file {path}.")
    if not path.is_file():
        raise ValueError(f"safetensors: {path} is not a file.")
    try:
        return open(path, "rb")
    except OSError as error:
        raise ValueError(f"safetensors: cannot read {path}: {error}.") from error


def _read_header(path: Path, file: io.BufferedReader) -> Header:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] <= b"\x05"):
        # A real header would be over 64 KB long here, and JSON in its place is rare.
        following = file.read(1)
        if following != b"{":
            raise _pickle(pathlib.Path(path))
        file.seek(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise _damaged(path, "its first bytes give no possible header length")
    try:
        table = json.loads(file.read(length), object_pairs_hook=_unique)
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
        raise _damaged(path, f"bad header ({error})") from error
    offset = 0
    for entry in entries:
        if entry.begin != offset:
            raise _damaged(path, f"a gap or overlap before {entry.name!r}")
        offset = entry.end
    if offset != size - 8 - length:
        raise _damaged(
            path, f"{size - 8 - length} bytes of data where {offset} are announced"
        )
    return Header(entries, metadata, crc, 8 + length)


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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands there twice")
    return table


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"safetensors: {path} is damaged or not a safetensors file: {why}. "
        f"Copy or download it again."
    )


def _pickle(path: pathlib.Path) -> ValueError:
    return ValueError(
        f"safetensors: {path} is a pickle, which can run code when read. Use the "
        f"model's .safetensors file, or convert it with safetensors.torch.save_file."
    )
