"""Drawn pictures as files: PNGs that hold their settings, and drawing on from them."""

import io
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from imagen_jax import __version__
from imagen_jax.cascade import animation
from imagen_jax.cascade.samples import Samples

KEY = "imagen_jax"  # of the settings among a PNG's texts
SETTINGS = "settings.json"
ROW = ("prompt", "seed", "number", "negative")  # What one picture is.
# What a PNG must tell for drawing to go on from it.
NEEDED = {"prompt": str, "number": int, "seed": int, "stage": str}


def common(samples: Samples) -> dict[str, Any]:
    """What all pictures have alike: version, model, the stages' settings, the size."""
    told = {
        KEY: __version__,
        "model": samples.model,
        "stages": [dict(stage) for stage in samples.settings],
    }
    if samples.size is not None:
        told["size"] = list(samples.size)
    if samples.edited:
        told["edited"] = True
    return told


def png(samples: Samples, stage: int = -1, picture: int = 0) -> bytes:
    """One picture as a PNG that holds its prompt, seed, number and all settings.

    Args:
      samples: the pictures.
      stage: index among `samples.stages`.
      picture: index among the stage's pictures.
    """
    told = {
        **common(samples),
        "prompt": samples.prompts[picture],
        "number": samples.numbers[picture],
        "seed": samples.seeds[picture],
        "stage": samples.stage_names[stage],
    }
    if samples.negatives[picture]:
        told["negative"] = samples.negatives[picture]
    text = PngImagePlugin.PngInfo()
    text.add_itxt(KEY, json.dumps(told))
    buffer = io.BytesIO()
    image = Image.fromarray(samples.stages[stage][picture])
    image.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def save(
    samples: Samples, folder: str | pathlib.Path, *, moving: str = "webp"
) -> list[pathlib.Path]:
    """Write a PNG a stage and picture, `sheet.png`, `settings.json` and animations.

    Args:
      samples: the pictures; those that an interrupted drawing lacks are left out.
      folder: created when missing; files of the same names are replaced.
      moving: "webp", "gif" or "png", of the animations, if there are frames.

    Returns:
      The PNGs of the pictures.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files, listed = [], []
    for k, (name, pictures) in enumerate(
        zip(samples.stage_names, samples.stages, strict=True)
    ):
        height, width = pictures.shape[1:3]
        size = f"{width}" if height == width else f"{width}x{height}"
        for i in range(len(pictures)):
            path = folder / f"{i:03d}_{name}_{size}.png"
            path.write_bytes(png(samples, k, i))
            files.append(path)
            listed.append({"file": path.name, "picture": i, "stage": name})
    rows = zip(
        *(samples.prompts, samples.seeds, samples.numbers, samples.negatives),
        strict=True,
    )
    written = {
        **common(samples),
        "complete": samples.complete,
        "pictures": [dict(zip(ROW, row, strict=True)) for row in rows],
        "files": listed,
    }
    (folder / SETTINGS).write_text(json.dumps(written, indent=2) + "\n")
    if files:
        samples.sheet().save(folder / "sheet.png")
    if any(len(f) for f in samples.frames):
        for i in range(max(f.shape[1] for f in samples.frames)):
            animation.save(folder / f"{i:03d}.{moving}", samples.animation(i))
        animation.save(folder / f"sheet_animation.{moving}", samples.animation())
    return files


def read(paths: Sequence[str | pathlib.Path], stage_names: Sequence[str]) -> Samples:
    """Pictures that a run wrote, to go on from with `TextToImage.resume`.

    They begin with the first stage that all pictures have; later stages are taken as
    far as the first pictures have them, and drawn again behind. The pictures of a
    folder with a `settings.json` are those listed there, drawn yet or not.

    Args:
      paths: PNGs, or folders of them, of one model and one set of settings.
      stage_names: the model's, in order.

    Raises:
      ValueError: naming a file that is no picture of such a run, or what differs; or
        if they come from a picture that was given, which no file holds.
    """
    told = first_settings(paths)
    if told.get("edited"):
        raise ValueError(
            f"--from: {paths[0]} was made from a picture that it does not hold; run "
            "`imagen-jax edit` again."
        )
    pictures: dict[tuple, dict[str, np.ndarray]] = {}
    for path in map(pathlib.Path, paths):
        if (path / SETTINGS).is_file():
            for row in _written(path)["pictures"]:
                pictures.setdefault(_row(row), {})
    for path, other, picture in _found(paths):
        if other["stage"] not in stage_names:
            raise ValueError(
                f"--from: {path} is of stage {other['stage']!r}; the model's are "
                f"{list(stage_names)}."
            )
        for name in ("model", "stages", "size", "edited"):
            if other.get(name) != told.get(name):
                raise ValueError(
                    f"--from: {path} was drawn with another {name} entry than what "
                    f"comes before it; go on from one run at a time."
                )
        pictures.setdefault(_row(other), {})[other["stage"]] = picture
    names, stages = _prefixes(list(pictures.values()), stage_names)
    prompts, seeds, numbers, negatives = zip(*pictures, strict=True)
    return Samples(
        prompts,
        stages,
        names,
        numbers=numbers,
        seeds=seeds,
        model=told.get("model", ""),
        settings=tuple(told.get("stages", ())),
        complete=False,
        negatives=negatives,
        size=tuple(told["size"]) if "size" in told else None,
    )


def first_settings(paths: Sequence[str | pathlib.Path]) -> dict[str, Any]:
    """What the first folder's settings or the first PNG tell, such as the model.

    Raises:
      ValueError: if there is none.
    """
    first = pathlib.Path(paths[0])
    if (first / SETTINGS).is_file():
        return _written(first)
    for _, told, _ in _found(paths):
        return told
    raise ValueError(
        f"--from: no PNG of a run in {', '.join(map(str, paths))}; give a folder that "
        "`imagen-jax sample` wrote, or its PNGs."
    )


def _written(folder: pathlib.Path) -> dict[str, Any]:
    """A folder's settings.json."""
    path = folder / SETTINGS
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        names = [str(file["file"]) for file in told["files"]]
        rows = [tuple(row[name] for name in ROW) for row in told["pictures"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"--from: {path} is damaged ({error!r}); give the PNGs themselves."
        ) from error
    if not rows or any(pathlib.Path(name).name != name for name in names):
        raise ValueError(f"--from: {path} is damaged; give the PNGs themselves.")
    return told


def _prefixes(
    rows: list[dict[str, np.ndarray]], stage_names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[np.ndarray, ...]]:
    """Names and pictures of the stages to go on from."""
    common_to_all = [name for name in stage_names if all(name in row for row in rows)]
    if not all(rows):  # Some are not drawn at all: the run began with the first stage.
        common_to_all = list(stage_names)
    if not common_to_all:
        raise ValueError(
            "--from: a stage that all pictures have is required; give the PNGs of one "
            "stage."
        )
    # The first of them, so that a whole run is written again as a whole.
    first = stage_names.index(common_to_all[0])
    names, stages = [], []
    for name in stage_names[first:]:
        there = 0
        while there < len(rows) and name in rows[there]:
            there += 1
        if not there:
            break
        shapes = {rows[i][name].shape for i in range(there)}
        if len(shapes) > 1:
            raise ValueError(f"--from: pictures of stage {name} differ in size.")
        names.append(name)
        stages.append(np.stack([rows[i][name] for i in range(there)]))
        if there < len(rows):
            break
    return tuple(names), tuple(stages)


def _found(paths: Sequence[str | pathlib.Path]) -> Iterable[tuple]:
    """(file, what it tells, its picture) of each picture, in the order of names."""
    for given in map(pathlib.Path, paths):
        inside, files = given.is_dir(), [given]
        if (given / SETTINGS).is_file():
            files = [given / file["file"] for file in _written(given)["files"]]
        elif inside:
            files = sorted(given.glob("*.png"), key=lambda p: _place(p.name))
        for path in files:
            told = read_settings(path)
            if told is None:
                if inside:
                    continue  # Sheets and others.
                raise ValueError(f"--from: {path} is no PNG of `imagen-jax sample`.")
            with Image.open(path) as image:
                yield path, told, np.asarray(image.convert("RGB"))


def _row(told: Mapping[str, Any]) -> tuple:
    return tuple(told.get(name, "") for name in ROW)


def _place(name: str) -> tuple[int, str]:
    digits = re.match(r"\d+", name)
    return (int(digits[0]) if digits else 0, name)


def read_settings(path: str | pathlib.Path) -> dict[str, Any] | None:
    """What a PNG of a run tells, or None for another file.

    Raises:
      ValueError: if it is damaged.
    """
    try:
        with Image.open(path) as image:
            told = json.loads(image.info.get(KEY, "null"))
            image.load()
    except UnidentifiedImageError:
        return None
    except (OSError, ValueError, SyntaxError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"--from: {path} is damaged ({error}).") from error
    if not isinstance(told, dict):
        return None
    for name, kind in NEEDED.items():
        if not isinstance(told.get(name), kind):
            raise ValueError(f"--from: {path} does not tell its {name}.")
    return told
