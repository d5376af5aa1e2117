"""The sprite sheet: Noto Color Emoji bitmaps, drawn at any size and place.

The sheet and its table are made by `make_sprites.py` and lie in assets/ with the
font's licence.
"""

import functools
import json
import pathlib

import numpy as np
from PIL import Image

ASSETS = pathlib.Path(__file__).parent / "assets"
TILE = 128
LOOKS = 128  # principal coordinates; 98 % of the variance


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of all objects, in the order of the sprite sheet."""
    table = json.loads((ASSETS / "sprites.json").read_text())
    return tuple(entry["name"] for entry in table["objects"])


@functools.cache
def synonyms(name: str) -> tuple[str, ...]:
    """Return the other names of an object; most have none."""
    table = json.loads((ASSETS / "sprites.json").read_text())
    by_name = {entry["name"]: entry["synonyms"] for entry in table["objects"]}
    return tuple(by_name[name])


@functools.cache
def pyramids() -> dict[str, tuple[Image.Image, ...]]:
    """Load the sheet: each object as a pyramid of tiles with premultiplied alpha.

    Levels have sides 128, 64, 32 and 16, each in the middle of a transparent square
    of twice that side, so that an antialiased cut may reach over the edge.
    """
    table = json.loads((ASSETS / "sprites.json").read_text())
    with Image.open(ASSETS / "sprites.png") as file:
        sheet = np.asarray(file.convert("RGBA")).astype(np.float32)
    sheet[..., :3] *= sheet[..., 3:] / 255.0
    result = {}
    for i, entry in enumerate(table["objects"]):
        row, column = divmod(i, table["columns"])
        tile = sheet[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        levels = []
        for level in range(4):
            side = TILE >> level
            fine = tile.reshape(side, 1 << level, side, 1 << level, 4).mean((1, 3))
            padded = np.pad(
                fine, ((side // 2, side // 2), (side // 2, side // 2), (0, 0))
            )
            # RGBX: four plain channels, resized without any alpha arithmetic.
            pixels = np.rint(padded).astype(np.uint8).tobytes()
            levels.append(Image.frombytes("RGBX", (2 * side, 2 * side), pixels))
        result[entry["name"]] = tuple(levels)
    return result


@functools.cache
def looks() -> np.ndarray:
    """Return each object's first principal coordinates, float32 [objects, LOOKS].

    Of its premultiplied RGBA values at 16 x 16, those that vary most first; the mean
    over objects is 0, the mean square of all values 1.
    """
    tiles = [cut(name, 8.0, 8.0, 16.0, (0, 0, 16, 16)) for name in names()]
    flat = np.stack(tiles).reshape(len(tiles), -1).astype(np.float64)
    basis, sizes, _ = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    # A singular vector's sign is the library's whim: the largest value is positive.
    largest = np.take_along_axis(basis, abs(basis).argmax(0)[None], axis=0)
    coordinates = (basis * np.sign(largest) * sizes)[:, :LOOKS]
    return (coordinates / np.sqrt(np.mean(coordinates**2))).astype(np.float32)


@functools.cache
def edge(name: str, which: str) -> float:
    """Return how much of an object lies in the third of its tile at one edge.

    `which` is "left", "right", "top" or "bottom".
    """
    tile = pyramids()[name][0]
    alpha = np.asarray(tile)[TILE // 2 : -TILE // 2, TILE // 2 : -TILE // 2, 3]
    along = alpha.sum(0 if which in ("left", "right") else 1, dtype=np.float64)
    part = -(-TILE // 3)
    strip = along[:part] if which in ("left", "top") else along[-part:]
    return float(strip.sum() / along.sum())


def cut(
    name: str, x: float, y: float, side: float, box: tuple[int, int, int, int]
) -> np.ndarray:
    """Draw the part of an object inside a box of pixels, uint8 [h, w, 4].

    x, y, side and the box (left, top, right, bottom) are in pixels; alpha is
    premultiplied. The position is exact to a fraction of a pixel.
    """
    pyramid = pyramids()[name]
    level = 0
    while level + 1 < len(pyramid) and (TILE >> (level + 1)) >= 2 * side:
        level += 1
    scale = (TILE >> level) / side
    tile = pyramid[level]
    left, top, right, bottom = box
    source = (
        max((left - x) * scale + tile.width / 2, 0.0),
        max((top - y) * scale + tile.height / 2, 0.0),
        min((right - x) * scale + tile.width / 2, tile.width),
        min((bottom - y) * scale + tile.height / 2, tile.height),
    )
    kernel = Image.Resampling.HAMMING if scale > 1 else Image.Resampling.BICUBIC
    return np.asarray(tile.resize((right - left, bottom - top), kernel, box=source))
