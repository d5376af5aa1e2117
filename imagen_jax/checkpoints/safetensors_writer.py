"""A safetensors file written one array at a time, which can be gone on with.

The arrays may come in any order; each goes to its place in a file under another name
(.NAME.partial). A journal beside it (.NAME.journal) notes what is there with a checksum
of its bytes, so that the next process believes nothing that a crash has lost.
"""

import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from imagen_jax.checkpoints import safetensors_header

CHUNK = 1 << 24  # bytes


class Writer:
    """A file on its way; use it in a `with`, and call `finish` when all is there.

    Args:
      path: of the finished file, which is replaced.
      arrays: types and shapes of its arrays by name.
      metadata: strings to store beside them.
      identity: what the arrays come from; a partial file of another origin, or with
        other arrays, is begun again.

    Raises:
      ValueError: for an array of a type the format lacks.
    """

    def __init__(
        self,
        path: safetensors_header.Path,
        arrays: Mapping[str, tuple[np.dtype, Sequence[int]]],
        metadata: Mapping[str, str],
        identity: str,
    ):
        self._path = pathlib.Path(path)
        self._metadata = dict(metadata)
        entries = safetensors_header.layout(self._path, arrays)
        self._order = entries
        self._entries = {entry.name: entry for entry in entries}
        header = safetensors_header.encode(entries, self._metadata, 0)
        self._begin = len(header)
        self._size = self._begin + (entries[-1].end if entries else 0)
        self._identity = hashlib.sha256(header + identity.encode()).hexdigest()
        self._partial, self._noted = partial_of(self._path), journal_of(self._path)
        self._done: set[str] = set()

    def __enter__(self) -> "Writer":
        known = _read_journal(self._noted, self._identity)
        whole = self._partial.is_file() and self._partial.stat().st_size == self._size
        self._file: IO[bytes] = open(self._partial, "r+b" if whole else "w+b")
        self._file.truncate(self._size)
        self._done = {
            name
            for name, crc in known.items()
            if whole and name in self._entries and self._crc(name) == crc
        }
        self._journal = open(self._noted, "a" if self._done else "w")
        if not self._done:
            self._note({"identity": self._identity})
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._journal.close()

    @property
    def missing(self) -> int:
        """Bytes of the arrays that are not there yet."""
        left = (e for name, e in self._entries.items() if name not in self._done)
        return sum(entry.end - entry.begin for entry in left)

    def has(self, name: str) -> bool:
        """Whether an array is already there."""
        return name in self._done

    def write(self, name: str, array: np.ndarray) -> None:
        """Put an array into its place.

        Raises:
          ValueError: if it has another type or shape than announced.
          OSError: if the disk is full, for example; what was written stays.
        """
        entry = self._entries[name]
        if array.dtype != entry.dtype or array.shape != entry.shape:
            raise ValueError(
                f"safetensors: {name} of {self._path} must be {entry.dtype} of shape "
                f"{entry.shape}, got {array.dtype} of shape {array.shape}."
            )
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._file.seek(self._begin + entry.begin)
        self._file.write(data.data)
        self._file.flush()
        self._note({"name": name, "crc32": zlib.crc32(data.data)})
        self._done.add(name)

    def finish(self) -> None:
        """Write the header, give the file its name and remove the journal.

        Raises:
          ValueError: if an array is not there.
        """
        if lacking := sorted(self._entries.keys() - self._done):
            raise ValueError(f"safetensors: {self._path} lacks {lacking[0]}.")
        crc = safetensors_header.crc_of(self._order, self._metadata)
        crc = self._crc_of(0, self._size - self._begin, crc)
        self._file.seek(0)
        self._file.write(safetensors_header.encode(self._order, self._metadata, crc))
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._partial, self._path)
        self._noted.unlink()

    def _note(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()

    def _crc(self, name: str) -> int:
        entry = self._entries[name]
        return self._crc_of(entry.begin, entry.end, 0)

    def _crc_of(self, begin: int, end: int, crc: int) -> int:
        self._file.seek(self._begin + begin)
        for at in range(begin, end, CHUNK):
            crc = zlib.crc32(self._file.read(min(CHUNK, end - at)), crc)
        return crc


def partial_of(path: pathlib.Path) -> pathlib.Path:
    """The file's name until it is whole."""
    return path.with_name(f".{path.name}.partial")


def journal_of(path: pathlib.Path) -> pathlib.Path:
    """The name of the journal beside the partial file."""
    return path.with_name(f".{path.name}.journal")


def _read_journal(path: pathlib.Path, identity: str) -> dict[str, int]:
    """The arrays that a journal of this identity notes, with their checksums."""
    if not path.is_file():
        return {}
    noted: dict[str, int] = {}
    try:
        first, *lines = path.read_text().splitlines()
        if json.loads(first) != {"identity": identity}:
            return {}
        for line in lines:
            value = json.loads(line)
            noted[value["name"]] = value["crc32"]
    except (ValueError, KeyError, TypeError):
        pass  # The line at which a process was stopped.
    return noted
