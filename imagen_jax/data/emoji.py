"""Scenes of Noto Color Emoji on coloured grounds, with captions.

"a red apple on a blue background", "three stars", "a dog left of a pizza",
"a big tree and a small cat". A caption that names no background has a white one.
Layouts are in unit coordinates: one scene is the same picture at every resolution.

About 12 % of the combinations, chosen by a hash of what they show, never appear in
training; the split "heldout" draws only those (see `is_heldout`).
"""

from typing import NamedTuple

import numpy as np

from imagen_jax.data import order, sprites

# Chosen so that no object vanishes (gray loses the elephant, orange the horse).
BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (20, 20, 24),
    "blue": (96, 152, 236),
    "green": (124, 200, 120),
    "yellow": (250, 226, 120),
    "cyan": (110, 215, 220),
    "pink": (244, 143, 190),
    "purple": (166, 130, 220),
}
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = ("one", "two", "three", "four")
SPLITS = ("train", "heldout")
HELDOUT = 0.12
# How often each kind of scene is drawn, and how often a background is named.
KINDS = {"single": 0.35, "count": 0.2, "relation": 0.3, "and": 0.15}
NAMED_BACKGROUND = 0.6
# Sides of an object, least and most, in units of the picture's side.
SINGLE_SIDE = {"": (0.5, 0.62), "big": (0.78, 0.9), "small": (0.3, 0.36)}
PAIR_SIDE = {"": (0.38, 0.44), "big": (0.5, 0.55), "small": (0.3, 0.34)}
COUNT_SIDE = {1: (0.5, 0.62), 2: (0.36, 0.43), 3: (0.34, 0.41), 4: (0.34, 0.41)}
GAP = 0.03
IRREGULAR = {"fish": "fish"}


class Placed(NamedTuple):
    """An object at its centre, with its side; units of the picture's side."""

    name: str
    x: float
    y: float
    side: float


class Scene(NamedTuple):
    """What a caption says and where it is drawn."""

    caption: str
    background: str
    placed: tuple[Placed, ...]


def plural(name: str) -> str:
    """Return the plural of an object's name: "butterfly" -> "butterflies"."""
    if name in IRREGULAR:
        return IRREGULAR[name]
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    return name + "s"


def indefinite(words: str) -> str:
    """Put "a" or "an" before the words."""
    vowel = words[0] in "aeiou" and not words.startswith("uni")
    return f"{'an' if vowel else 'a'} {words}"


def sized(size: str, name: str) -> str:
    """Return "a cat", "a big cat" or "a small cat"."""
    return indefinite(f"{size} {name}" if size else name)


def is_heldout(kind: str, parts: tuple, background: str) -> bool:
    """Return whether what a scene shows is kept from training.

    The key of a single object is (size, object, background), never held out on white;
    of a count (number, object), never for one; of a relation (object, relation,
    object), with right of and below turned round; of "and" the unordered pair of
    sized objects. Backgrounds of scenes with several objects do not count: such a
    combination is unseen on every background.
    """
    if kind == "single":
        if background == "white":
            return False
        parts = (*parts, background)
    elif kind == "count" and parts[0] == 1:
        return False
    elif kind == "and":
        parts = tuple(sorted(parts))
    return order.fraction(f"emoji: {kind} {parts}") < HELDOUT


def in_row(
    draw: order.Draw, named: list[str], sides: list[float], horizontal: bool
) -> tuple[Placed, ...]:
    """Place objects along one axis, in order, without overlap."""
    slack = 1.0 - sum(sides) - GAP * (len(sides) + 1)
    cuts = sorted(draw.uniform(0.0, slack) for _ in sides)
    middle = draw.uniform(0.42, 0.58)
    placed, used = [], 0.0
    for i, (name, side) in enumerate(zip(named, sides, strict=True)):
        along = cuts[i] + GAP * (i + 1) + used + side / 2
        half = side / 2 + GAP
        across = min(max(middle + draw.uniform(-0.08, 0.08), half), 1.0 - half)
        x, y = (along, across) if horizontal else (across, along)
        placed.append(Placed(name, x, y, side))
        used += side
    return tuple(placed)


def in_grid(
    draw: order.Draw, name: str, number: int, side: float
) -> tuple[Placed, ...]:
    """Place three or four equal objects in two rows; three stand as a triangle."""
    rows = ((0.5,), (0.25, 0.75)) if number == 3 else ((0.25, 0.75),) * 2
    if number == 3 and draw.below(2):
        rows = rows[::-1]
    loose = 0.25 - GAP / 2 - side / 2
    return tuple(
        Placed(
            name,
            x + draw.uniform(-loose, loose),
            y + draw.uniform(-loose, loose),
            side,
        )
        for row, y in zip(rows, (0.25, 0.75), strict=True)
        for x in row
    )


def single(draw: order.Draw) -> tuple:
    """Draw one object, perhaps big or small: its parts, words and placing."""
    name, size = draw.choose(sprites.names()), draw.choose(("", "", "big", "small"))

    def place() -> tuple[Placed, ...]:
        side = draw.uniform(*SINGLE_SIDE[size])
        loose = min(0.5 - side / 2 - GAP, 0.2)
        x, y = (0.5 + draw.uniform(-loose, loose) for _ in "xy")
        return (Placed(name, x, y, side),)

    return (size, name), sized(size, name), place


def count(draw: order.Draw) -> tuple:
    """Draw one to four equal objects: their parts, words and placing."""
    name, number = draw.choose(sprites.names()), (1, 2, 2, 3, 3, 4, 4)[draw.below(7)]
    words = f"{NUMBERS[number - 1]} {plural(name) if number > 1 else name}"

    def place() -> tuple[Placed, ...]:
        side = draw.uniform(*COUNT_SIDE[number])
        if number > 2:
            return in_grid(draw, name, number, side)
        return in_row(draw, [name] * number, [side] * number, bool(draw.below(2)))

    return (number, name), words, place


def pair(draw: order.Draw, relations: tuple[str, ...]) -> tuple:
    """Draw two different objects and how they stand: parts, words and placing."""
    first, second = draw.choose(sprites.names()), draw.choose(sprites.names())
    while second == first:
        second = draw.choose(sprites.names())
    relation = draw.choose(relations)
    sizes = draw.choose((("", ""), ("big", "small"), ("small", "big")))
    if relation != "and" and draw.below(2):
        sizes = ("", "")
    words = f"{sized(sizes[0], first)} {relation} {sized(sizes[1], second)}"

    def place() -> tuple[Placed, ...]:
        sides = [draw.uniform(*PAIR_SIDE[size]) for size in sizes]
        named = [first, second]
        turned = relation in ("right of", "below")
        horizontal = relation in ("left of", "right of")
        if relation == "and":
            turned, horizontal = bool(draw.below(2)), bool(draw.below(2))
        if turned:
            named, sides = named[::-1], sides[::-1]
        return in_row(draw, named, sides, horizontal)

    if relation == "and":
        return ((sizes[0], first), (sizes[1], second)), words, place
    if relation in ("right of", "below"):
        opposite = {"right of": "left of", "below": "above"}[relation]
        return (second, opposite, first), words, place
    return (first, relation, second), words, place


def scene(seed: int, index: int, split: str = "train") -> Scene:
    """Make the scene number `index` of a split; a pure function."""
    draw = order.Draw(seed, index, SPLITS.index(split))
    kind = draw.weighted(KINDS)
    while True:
        if kind == "single":
            parts, words, place = single(draw)
        elif kind == "count":
            parts, words, place = count(draw)
        else:
            parts, words, place = pair(
                draw, RELATIONS if kind == "relation" else ("and",)
            )
        background = "white"
        if draw.uniform() < NAMED_BACKGROUND:
            background = draw.choose(tuple(BACKGROUNDS))
            words += f" on {indefinite(background)} background"
        if is_heldout(kind, parts, background) == (split == "heldout"):
            return Scene(words, background, place())


def caption(scene: Scene) -> str:
    """Return the scene's caption."""
    return scene.caption


def render(
    scene: Scene, resolution: int, window: tuple[int, int, int] | None = None
) -> np.ndarray:
    """Draw a scene as uint8 [resolution, resolution, 3] in [0, 255].

    `window` = (top, left, size) draws only that part of the picture.
    """
    top, left, size = window or (0, 0, resolution)
    image = np.empty((size, size, 3), np.uint8)
    image[:] = BACKGROUNDS[scene.background]
    for name, x, y, side in scene.placed:
        x, y, side = x * resolution, y * resolution, side * resolution
        box = (
            max(int(x - side / 2) - 1, left),
            max(int(y - side / 2) - 1, top),
            min(int(x + side / 2) + 2, left + size),
            min(int(y + side / 2) + 2, top + size),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        pixels = sprites.cut(name, x, y, side, box)
        part = image[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
        behind = part * (255 - pixels[..., 3:].astype(np.uint16))
        part[:] = np.minimum(pixels[..., :3] + (behind + 127) // 255, 255)
    return image
