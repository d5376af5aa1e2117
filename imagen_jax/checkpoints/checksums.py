"""Sizes and checksums of the files of a folder, so that damage is seen before reading.

Array files are compressed without a checksum of their own: a flipped bit in one would
come back as a wrong parameter and nothing else.
"""

import json
import os
import pathlib
import zlib

NAME = "checksums.json"
CHUNK = 1 << 23


def write(folder: str | os.PathLike) -> None:
    """Note every file below the folder's sub-folders in its `checksums.json`."""
    folder = pathlib.Path(folder)
    table = {
        str(path.relative_to(folder)): [path.stat().st_size, _crc(path)]
        for path in sorted(folder.glob("*/**/*"))
        if path.is_file()
    }
    (folder / NAME).write_text(json.dumps(table))


def find_damage(folder: str | os.PathLike) -> str | None:
    """What is wrong with a folder that `write` has noted, or None.

    A folder without notes (an object store's, an older one) passes.
    """
    folder = pathlib.Path(folder)
    if not (folder / NAME).exists():
        return None
    try:
        table = json.loads((folder / NAME).read_text())
        for name, (size, crc) in table.items():
            path = folder / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != size:
                return f"{path} has {path.stat().st_size} bytes instead of {size}"
            if _crc(path) != crc:
                return f"{path} has changed since it was written"
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return f"{folder / NAME}: {error}"
    return None


def _crc(path: pathlib.Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
