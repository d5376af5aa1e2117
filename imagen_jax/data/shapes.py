"""Coloured shapes with relations, drawn on the fly: a task that needs no files.

A scene is one shape ("a red circle") or two ("a red circle left of a blue square")
on a dark ground. Layouts are in unit coordinates, so one scene is the same picture at
every resolution. Shapes span 40 % of the picture and stay 10 % apart: 16 x 16 pixels
are enough to tell them.

About 12 % of the two-shape combinations, chosen by a hash of what they show, never
appear in training; the split "heldout" draws only those. "a above b" and "b below a"
show the same and share their fate. Single shapes are never held out.
"""

from typing import NamedTuple

import numpy as np

from imagen_jax.data import order

SHAPES = ("circle", "square", "triangle", "cross")
COLORS = {
    "red": (226, 38, 42),
    "orange": (255, 140, 16),
    "yellow": (250, 228, 50),
    "green": (36, 172, 66),
    "cyan": (64, 216, 232),
    "blue": (48, 84, 240),
    "purple": (168, 56, 206),
    "white": (246, 246, 246),
}
BACKGROUND = (24, 24, 28)
RELATIONS = ("left of", "right of", "above", "below")
SPLITS = ("train", "heldout")
HELDOUT = 0.12
PAIRS = 0.75
SUPERSAMPLE = 4


class Thing(NamedTuple):
    """A shape in a colour, e.g. Thing("red", "circle")."""

    color: str
    shape: str

    def __str__(self) -> str:
        article = "an" if self.color[0] in "aeiou" else "a"
        return f"{article} {self.color} {self.shape}"


class Placed(NamedTuple):
    """A thing at its centre, with its half extent; units of the picture's side."""

    thing: Thing
    x: float
    y: float
    radius: float


class Scene(NamedTuple):
    """What a caption says and where it is drawn."""

    caption: str
    placed: tuple[Placed, ...]


THINGS = tuple(Thing(color, shape) for color in COLORS for shape in SHAPES)


def pair_caption(first: Thing, relation: str, second: Thing) -> str:
    """Say how two things stand to each other."""
    return f"{first} {relation} {second}"


def canonical(first: Thing, relation: str, second: Thing) -> tuple[Thing, str, Thing]:
    """Return the one of the two equivalent phrasings that says left of or above."""
    if relation == "right of":
        return second, "left of", first
    if relation == "below":
        return second, "above", first
    return first, relation, second


def is_heldout(first: Thing, relation: str, second: Thing) -> bool:
    """Return whether the combination is kept from training."""
    key = pair_caption(*canonical(first, relation, second))
    return order.fraction("shapes: " + key) < HELDOUT


def draw_pair(draw: order.Draw, split: str) -> tuple[Thing, str, Thing]:
    """Draw two different things and a relation that belong to the split."""
    while True:
        first, second = draw.choose(THINGS), draw.choose(THINGS)
        relation = draw.choose(RELATIONS)
        if first == second:
            continue
        if is_heldout(first, relation, second) == (split == "heldout"):
            return first, relation, second


def place_pair(draw: order.Draw, first: Thing, relation: str, second: Thing) -> Scene:
    """Lay two things out so that only the one relation holds."""
    near, axis, far = canonical(first, relation, second)
    radii = draw.uniform(0.18, 0.21), draw.uniform(0.18, 0.21)
    slack = 1.0 - 2.0 * sum(radii) - 0.1
    before = draw.uniform(0.02, slack - 0.02)
    between = draw.uniform(0.0, slack - 0.02 - before) + 0.1
    along = (
        before + radii[0],
        before + 2.0 * radii[0] + between + radii[1],
    )
    middle, tilt = draw.uniform(0.35, 0.65), draw.uniform(-0.12, 0.12)
    across = (middle - tilt, middle + tilt)
    across = tuple(min(max(a, 0.23), 0.77) for a in across)
    points = (
        zip(along, across, strict=True)
        if axis == "left of"
        else zip(across, along, strict=True)
    )
    placed = tuple(
        Placed(thing, x, y, radius)
        for thing, (x, y), radius in zip((near, far), points, radii, strict=True)
    )
    return Scene(pair_caption(first, relation, second), placed)


def scene(seed: int, index: int, split: str = "train") -> Scene:
    """Make the scene number `index` of a split; a pure function."""
    draw = order.Draw(seed, index, SPLITS.index(split))
    if split == "heldout" or draw.uniform() < PAIRS:
        return place_pair(draw, *draw_pair(draw, split))
    thing, radius = draw.choose(THINGS), draw.uniform(0.2, 0.36)
    x, y = (draw.uniform(radius + 0.03, 0.97 - radius) for _ in "xy")
    return Scene(str(thing), (Placed(thing, x, y, radius),))


def caption(scene: Scene) -> str:
    """Return the scene's caption."""
    return scene.caption


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the distance to the edge of a shape of half extent 1, negative inside.

    y points down. Corners are not rounded: the value is the largest of the distances
    to the edges' lines, which is all that antialiasing needs.
    """
    if shape == "circle":
        return np.hypot(x, y) - 1.0
    x = np.abs(x)
    if shape == "square":
        return np.maximum(x, np.abs(y)) - 0.9
    if shape == "triangle":
        return np.maximum(y - 1.0, (2.0 * x - y - 1.0) / np.sqrt(5.0))
    if shape == "cross":
        y, arm = np.abs(y), 0.34
        return np.minimum(np.maximum(x - 1.0, y - arm), np.maximum(x - arm, y - 1.0))
    raise ValueError(f"shapes: shape must be one of {SHAPES}, got {shape!r}.")


def coverage(
    shape: str, x: float, y: float, radius: float, rows: range, columns: range
) -> np.ndarray:
    """Return the covered part of each pixel, float32 [rows, columns] in [0, 1].

    x, y and radius are in pixels. A pixel of a small shape is the mean of 4 x 4 points,
    each of them antialiased by its distance to the edge; of a large one, one point.
    """
    n = SUPERSAMPLE if radius < 32 else 1
    step = np.arange(n, dtype=np.float32) / n + 0.5 / n
    ys = (np.arange(rows.start, rows.stop)[:, None] + step).reshape(-1, 1)
    xs = (np.arange(columns.start, columns.stop)[:, None] + step).reshape(1, -1)
    distance = signed_distance(
        shape,
        ((xs - x) / radius).astype(np.float32),
        ((ys - y) / radius).astype(np.float32),
    )
    fine = np.clip(0.5 - distance * np.float32(n * radius), 0.0, 1.0)
    return fine.reshape(len(rows), n, len(columns), n).mean((1, 3))


def render(
    scene: Scene, resolution: int, window: tuple[int, int, int] | None = None
) -> np.ndarray:
    """Draw a scene as uint8 [resolution, resolution, 3] in [0, 255].

    `window` = (top, left, size) draws only that part of the picture.
    """
    top, left, size = window or (0, 0, resolution)
    image = np.empty((size, size, 3), np.float32)
    image[:] = BACKGROUND
    for thing, x, y, radius in scene.placed:
        x, y, radius = x * resolution, y * resolution, radius * resolution
        rows = range(
            max(int(y - radius) - 1, top), min(int(y + radius) + 2, top + size)
        )
        columns = range(
            max(int(x - radius) - 1, left), min(int(x + radius) + 2, left + size)
        )
        if not rows or not columns:
            continue
        alpha = coverage(thing.shape, x, y, radius, rows, columns)[..., None]
        part = image[
            rows.start - top : rows.stop - top,
            columns.start - left : columns.stop - left,
        ]
        part += alpha * (np.asarray(COLORS[thing.color], np.float32) - part)
    return np.rint(image).astype(np.uint8)
