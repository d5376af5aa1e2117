"""manifest.json: what a converted model is made of, and what its files must hold.

{"format": 1, "origin": {...}, "files": {name: {"size", "sha256"}}}: the origin says
which files elsewhere, and which revision, the model came from.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from etils import epath

NAME = "manifest.json"
FORMAT = 1
CHUNK = 1 << 23  # bytes
# Larger files have checksums of their own, which are compared when they are read.
COMPARED = 64_000_000  # bytes


def entry(path: str | os.PathLike) -> dict[str, Any]:
    """Size and SHA-256 of a file, local or gs://."""
    digest, size = hashlib.sha256(), 0
    with epath.Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"size": size, "sha256": digest.hexdigest()}


def entry_of(data: bytes) -> dict[str, Any]:
    """Size and SHA-256 of bytes, as `entry` gives them for a file."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write(
    folder: pathlib.Path, origin: Mapping[str, Any], files: Mapping[str, Any]
) -> None:
    """Write a folder's manifest; it appears whole or not at all."""
    text = json.dumps(
        {"format": FORMAT, "origin": dict(origin), "files": dict(files)}, indent=1
    )
    partial = folder / f".{NAME}"
    partial.write_text(text + "\n")
    os.replace(partial, folder / NAME)


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """A folder's manifest, None where it has none.

    Raises:
      ValueError: if it is damaged, or of a later format.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        files = found["files"]
        for name, value in files.items():
            if name != os.path.basename(name) or name in ("", ".", ".."):
                raise ValueError(f"{name!r} is no name of a file")
            if type(value["size"]) is not int or type(value["sha256"]) is not str:
                raise ValueError(f"{name} lacks size or sha256")
        version, _ = found["format"], found["origin"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"model: {path} is damaged ({error}); convert the model again."
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"model: {path} has format {version}, this version reads {FORMAT}; "
            "upgrade imagen_jax."
        )
    return found


def require_undamaged(folder: pathlib.Path) -> None:
    """Compare a folder with its manifest, if it has one; contents of small files only.

    Raises:
      ValueError: naming a file that is missing, or of another size or content.
    """
    found = read(folder)
    for name, expected in (found["files"] if found else {}).items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"model: {path} is missing; convert the model again.")
        size = path.stat().st_size
        if size != expected["size"]:
            raise ValueError(
                f"model: {path} has {size} bytes instead of {expected['size']}; "
                "convert the model again."
            )
        if size <= COMPARED and entry(path) != expected:
            raise ValueError(
                f"model: {path} has changed since it was written; convert the model "
                f"again, or remove {NAME} if the change was meant."
            )
