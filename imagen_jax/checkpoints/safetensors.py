"""Safetensors files: arrays by name, read without executing anything.

The format is read here rather than by its library so that bfloat16 stays a numpy array
and every kind of damage is one clear line. Files written here also carry a checksum, so
that a flipped bit is seen.
"""

import io
import os
import pathlib
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from etils import epath

from imagen_jax.checkpoints import safetensors_header

DTYPES = safetensors_header.DTYPES
CHECKSUM = safetensors_header.CHECKSUM
Path = safetensors_header.Path


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
    entries = safetensors_header.layout(
        path, {name: (a.dtype, a.shape) for name, a in arrays.items()}
    )
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
    file = File(path)
    return dict(file.stream()), file.metadata


def read_names(path: Path) -> list[str]:
    """The names of a file's arrays, sorted, without reading them.

    Raises:
      ValueError: as `load` does.
    """
    return File(path).names()


class File:
    """A file whose header is read at once and each array when asked for: `Tensors`.

    Attributes:
      metadata: the strings stored beside the arrays.

    Raises:
      ValueError: as `load` does. A flipped bit within an array is seen by `stream`,
        in a file that has our checksum, and by nothing else.
    """

    def __init__(self, path: Path):
        self._path = epath.Path(path)
        file, size = _opened(self._path)
        with file:
            header = safetensors_header.read(self._path, file, size)
        self._header = header
        self._entries = {entry.name: entry for entry in header.entries}
        self.metadata = header.metadata

    @property
    def where(self) -> str:
        """Its path, for messages."""
        return str(self._path)

    @property
    def files(self) -> list[epath.Path]:
        """The file alone."""
        return [self._path]

    def names(self) -> list[str]:
        """The names of its arrays, sorted."""
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array."""
        return self._entries[name].shape

    def dtype(self, name: str) -> np.dtype:
        """The type of an array."""
        return self._entries[name].dtype

    def read(self, name: str) -> np.ndarray:
        """One array.

        Raises:
          ValueError: if the file has become shorter or cannot be read.
        """
        file, _ = _opened(self._path)
        with file:
            entry = self._entries[name]
            file.seek(self._header.data_begin + entry.begin)
            return self._decoded(entry, self._bytes(file, entry))

    def stream(self) -> Iterator[tuple[str, np.ndarray]]:
        """All arrays in the order of the file; after the last the checksum is compared.

        Raises:
          ValueError: if the file is truncated or damaged.
        """
        header = self._header
        crc = safetensors_header.crc_of(header.entries, header.metadata)
        file, _ = _opened(self._path)
        with file:
            file.seek(header.data_begin)
            for entry in header.entries:
                data = self._bytes(file, entry)
                if header.checksum is not None:
                    crc = zlib.crc32(data.data, crc)
                yield entry.name, self._decoded(entry, data)
        if header.checksum is not None and crc != header.checksum:
            raise safetensors_header.damaged(self._path, "its checksum does not match")

    def _bytes(self, file: IO[bytes], entry: safetensors_header.Entry) -> np.ndarray:
        size = entry.end - entry.begin
        try:
            # Into numpy's own memory, which may be written to, wherever that is known.
            if isinstance(file, io.BufferedReader):
                data = np.empty(size, np.uint8)
                short = file.readinto(data.data) != size
            else:
                data = np.frombuffer(file.read(size), np.uint8)
                short = data.size != size
        except OSError as error:
            raise ValueError(
                f"safetensors: cannot read {self._path}: {error}."
            ) from error
        if short:
            raise safetensors_header.damaged(self._path, f"{entry.name!r} is cut short")
        return data

    def _decoded(self, entry: safetensors_header.Entry, data: np.ndarray) -> np.ndarray:
        if entry.dtype == np.bool_ and (data > 1).any():
            raise safetensors_header.damaged(
                self._path, f"{entry.name!r} holds a byte that is no bool"
            )
        return data.view(entry.dtype).reshape(entry.shape)


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
    crc = safetensors_header.crc_of(entries, metadata)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            # The checksum's place is fixed, so that it can be filled in afterwards.
            header = safetensors_header.encode(entries, metadata, 0)
            file.write(header)
            for entry in entries:
                array = np.asarray(arrays[entry.name]).astype(entry.dtype, copy=False)
                data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                crc = zlib.crc32(data.data, crc)
                file.write(data.data)
            file.seek(0)
            file.write(safetensors_header.encode(entries, metadata, crc))
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _opened(path: epath.Path) -> tuple[IO[bytes], int]:
    """A file opened for reading, and its size in bytes."""
    if path.suffix in safetensors_header.PICKLES:
        raise safetensors_header.pickle(path)
    if not path.exists():
        raise ValueError(f"safetensors: there is no file {path}.")
    # A pipe would be waited on for ever; an object store has files and folders alone.
    if path.is_dir() or ("://" not in str(path) and not os.path.isfile(path)):
        raise ValueError(f"safetensors: {path} is not a file.")
    try:
        return path.open("rb"), path.stat().length
    except OSError as error:
        raise ValueError(f"safetensors: cannot read {path}: {error}.") from error
