"""Published models as model directories: what `imagen-jax convert` does.

A part's parameters go from its checkpoint to its file one by one. What is done is
noted, and the next call goes on from there: with the first parameter that is missing of
the first file that is not whole.
"""

import contextlib
import hashlib
import importlib
import inspect
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from imagen_jax import __version__
from imagen_jax.checkpoints import (
    manifest,
    model_directory,
    safetensors,
    safetensors_writer,
    tensors,
)
from imagen_jax.published import conversion

# Format -> module of `published/` whose `convert` knows it.
FORMATS = {
    "t5": "t5",
    "byt5": "t5",
    "t5x": "t5",
    "clip": "clip",
    "bert": "bert",
    "deepfloyd": "deepfloyd",
}
# Folders that a format reads of its first path alone.
FIRST_ONLY = {"deepfloyd": ("text_encoder/", "tokenizer/")}
NOTICE = "NOTICE"
PROGRESS = ".converting.json"
SPARE = 50_000_000  # bytes left on the disk, for what is beside the networks

# Called with (what, bytes done, bytes in all).
Report = Callable[[str, int, int], None]


def read(
    kind: str, paths: Sequence[str], options: Mapping[str, Any]
) -> conversion.Conversion:
    """The published model in some folders, its networks not yet read.

    Args:
      kind: one of FORMATS.
      paths: its folders, local or gs://.
      options: keywords of the format's own `convert`.

    Raises:
      ValueError: for an unknown format or option, or as the format's `convert` does.
    """
    if kind not in FORMATS:
        raise ValueError(f"--from: must be one of {sorted(FORMATS)}, got {kind!r}.")
    module = importlib.import_module(f"imagen_jax.published.{FORMATS[kind]}")
    known = list(inspect.signature(module.convert).parameters)[1:]
    for name in options:
        if name not in known:
            raise ValueError(
                f"--option: {kind} has {known or 'no options'}, got {name!r}."
            )
    return module.convert(list(paths), **options)


def convert(
    model: conversion.Conversion,
    out: str | pathlib.Path,
    *,
    dtype: str,
    origin: Mapping[str, Any],
    report: Report = lambda what, done, total: None,
) -> int:
    """Write a checked model as a model directory, or go on with writing it.

    Args:
      model: what `read` gave and `check` passed.
      out: the directory, which is made.
      dtype: of the stored floating-point numbers, one of model_directory.DTYPES.
      origin: said in the manifest: format, paths, revisions.
      report: told of the progress.

    Returns:
      The directory's size in bytes.

    Raises:
      ValueError: if the disk has too little space, or a checkpoint is damaged.
    """
    folder = pathlib.Path(out)
    _require_space(model, folder, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    progress = _Progress(folder)
    sources = {p.name: _hash_sources(p, progress, report) for p in model.parts}
    marks = {p.name: _mark(p, dtype, sources[p.name]) for p in model.parts}
    _require_free(folder, marks)
    files: dict[str, Any] = {}
    for part in model.parts:
        path = folder / f"{part.name}.safetensors"
        files[path.name] = _finished(path, marks[part.name], progress)
        if files[path.name] is None:
            _write_part(part, path, dtype, marks[part.name], report)
            files[path.name] = manifest.entry(path)
            progress.note(path.name, marks[part.name], files[path.name])
    texts = {"model.json": _described(model)}
    if model.notice:
        texts[NOTICE] = model.notice.rstrip() + "\n"
        (folder / NOTICE).write_text(texts[NOTICE])
    for name, path in model.files.items():
        (folder / name).write_bytes(epath.Path(path).read_bytes())
        files[name] = manifest.entry(folder / name)
    files |= {name: manifest.entry_of(text.encode()) for name, text in texts.items()}
    said = {**origin, "dtype": dtype, "imagen_jax": __version__}
    manifest.write(folder, {**said, "files": sources, "marks": marks}, files)
    # Last, so that a directory with a model.json is whole.
    (folder / "model.json").write_text(texts["model.json"])
    progress.remove()
    return sum(path.stat().st_size for path in folder.iterdir())


class _Progress:
    """What earlier calls have done, as far as it is still true."""

    def __init__(self, folder: pathlib.Path):
        self._path = folder / PROGRESS
        self._known: dict[str, Any] = {}
        # Without a manifest it is a first call, or one that was stopped.
        if done := manifest.read(folder):
            marks = done["origin"].get("marks", {})
            for part, mark in marks.items():
                name = f"{part}.safetensors"
                self._known[name] = {"mark": mark, "value": done["files"].get(name)}
        elif self._path.is_file():
            # A line at which a process was stopped counts as none.
            with contextlib.suppress(ValueError, TypeError):
                self._known = dict(json.loads(self._path.read_text()))

    def get(self, key: str, mark: Any) -> dict[str, Any] | None:
        """What was noted under a key, if it was with this mark."""
        noted = self._known.get(key)
        return noted["value"] if noted and noted["mark"] == mark else None

    def note(self, key: str, mark: Any, value: dict[str, Any]) -> None:
        """Note a value that is true as long as the mark is the same."""
        self._known[key] = {"mark": mark, "value": value}
        partial = self._path.with_name(f"{PROGRESS}.partial")
        partial.write_text(json.dumps(self._known))
        os.replace(partial, self._path)

    def remove(self) -> None:
        """All is done."""
        self._path.unlink(missing_ok=True)


def _hash_sources(
    part: conversion.Part, progress: _Progress, report: Report
) -> dict[str, Any]:
    """Sizes and checksums of a part's source files, by their names."""
    paths = [str(path) for path in tensors.files(part.tensors)]
    stamps = [_stamp(path) for path in paths]
    total, done, found = sum(size for size, _ in stamps), 0, {}
    where = part.tensors.where
    below = all(path.startswith(f"{where}/") for path in paths)
    prefix = (where if below else os.path.dirname(where)) + "/"
    for path, stamp in zip(paths, stamps, strict=True):
        report(f"checksums of {part.name}", done, total)
        value = progress.get(path, stamp)
        if value is None:
            value = manifest.entry(path)
            progress.note(path, stamp, value)
        found[path.removeprefix(prefix)] = value
        done += stamp[0]
    report(f"checksums of {part.name}", total, total)
    return found


def _stamp(path: str) -> list[int]:
    """A file's size, and when it was changed, as finely as is known."""
    if "://" in path:
        stat = epath.Path(path).stat()
        return [stat.length, stat.mtime]
    local = os.stat(path)
    return [local.st_size, local.st_mtime_ns]


def _mark(part: conversion.Part, dtype: str, sources: Mapping[str, Any]) -> str:
    """A hash of what decides the bytes of a part's file."""
    made = [[name, *source.names] for name, source in sorted(part.table.items())]
    text = json.dumps([made, dtype, sources, __version__])
    return hashlib.sha256(text.encode()).hexdigest()


def _require_free(folder: pathlib.Path, marks: Mapping[str, str]) -> None:
    if not (folder / "model.json").exists():
        return
    done = manifest.read(folder)
    if not done or done["origin"].get("marks") != marks:
        raise ValueError(
            f"--to: {folder} already holds another model; give a new directory."
        )


def _write_part(
    part: conversion.Part, path: pathlib.Path, dtype: str, mark: str, report: Report
) -> None:
    """Write one network's file, or the parameters that it still lacks."""
    total = conversion.size(part, dtype)
    layout = conversion.layout(part, dtype)
    shapes = safetensors.flatten(part.shapes)

    def layouts(name: str):
        return model_directory.layout(name, shapes[name].shape, dtype)

    try:
        with safetensors_writer.Writer(
            path, layout, {"network": part.name}, mark
        ) as writer:
            report(part.name, total - writer.missing, total)
            missing = {
                name: source
                for name, source in part.table.items()
                if not all(map(writer.has, layouts(name)))
            }
            for name, array in tensors.stream(part.tensors, missing):
                for stored, values in _encoded(part, name, array, dtype).items():
                    writer.write(stored, values)
                report(part.name, total - writer.missing, total)
            writer.finish()
    except OSError as error:
        raise ValueError(
            f"convert: cannot write {path}: {error}. What is written stays; mend that "
            "and give the same command again to go on."
        ) from error


def _encoded(
    part: conversion.Part, name: str, array: np.ndarray, dtype: str
) -> dict[str, np.ndarray]:
    try:
        return model_directory.encode(name, array, dtype)
    except ValueError as error:
        raise ValueError(f"{part.tensors.where}: {error}") from error


def _finished(
    path: pathlib.Path, mark: str, progress: _Progress
) -> dict[str, Any] | None:
    """The entry of a file that an earlier call wrote of the same sources."""
    noted = progress.get(path.name, mark)
    if not noted or not path.is_file() or path.stat().st_size != noted["size"]:
        return None
    return noted if manifest.entry(path) == noted else None


def _described(model: conversion.Conversion) -> str:
    text = None if model.stages else model.text
    return model_directory.describe(model.stages, text=text)


def _require_space(
    model: conversion.Conversion, folder: pathlib.Path, dtype: str
) -> None:
    """Raise if the disk cannot hold what is still to be written."""
    wanted = SPARE
    for part in model.parts:
        path = folder / f"{part.name}.safetensors"
        partial = safetensors_writer.partial_of(path)
        # A partial file has its full length from the start; its blocks are what it has.
        held = [p.stat().st_blocks * 512 for p in (path, partial) if p.exists()]
        wanted += max(0, conversion.size(part, dtype) - sum(held))
    where = folder.absolute()
    while not where.exists():
        where = where.parent
    free = shutil.disk_usage(where).free
    if free < wanted:
        raise ValueError(
            f"--to: {folder} needs {wanted / 1e9:.2f} GB, and its disk has "
            f"{free / 1e9:.2f} GB free; make room, give another disk, or a smaller "
            "--dtype."
        )
