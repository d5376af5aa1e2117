"""Scenes of Noto Color Emoji on coloured grounds, with captions.

"a red apple on a blue background", "three stars", "a pair of puppies", "a dog left of
a pizza", "a big tree and a small cat". A caption that names no background has a white
one. Layouts are in unit coordinates: one scene is the same picture at every resolution.
How claims become words is in `emoji_words`.

About 12 % of the combinations, chosen by a hash of what they show, never appear in
training; the split "heldout" draws only those (see `is_heldout`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from imagen_jax.data import emoji_words, order, sprites

Claim = emoji_words.Claim
Thing = emoji_words.Thing

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
MOST = 4  # objects of a scene
SPLITS = ("train", "heldout")
HELDOUT = 0.12
# How often each kind of scene is drawn, a background named, a caption paraphrased,
# and the two objects of a pair allowed to overlap.
KINDS = {"single": 0.3, "count": 0.25, "relation": 0.3, "and": 0.15}
# The same for the text encoder, which must read relations off the order of words.
WORDED_KINDS = {"single": 0.15, "count": 0.1, "relation": 0.6, "and": 0.15}
NAMED_BACKGROUND = 0.6
PARAPHRASED = 0.5
OVERLAPPING = 0.25
# How many of the scorer's training scenes have an object that is half another.
SPOILED = 0.15
# Objects stand on a lattice: corners and sides are whole eighths of the picture. A
# claim has one layout, but for overlaps: what a caption leaves open, no network can
# learn, and until noise is low enough to see where an object stands, nothing of its
# looks either.
LATTICE = 8
# How many of its principal coordinates tell an object in a layout.
GROUNDED = 16
# Sides of an object, in cells of the lattice.
SINGLE_SIDE = {"": 5, "big": 7, "small": 3}
PAIR_SIDE = {"": 3, "big": 5, "small": 3}
COUNT_SIDE = 3
# Cells between objects side by side; those by which an object of an overlapping pair
# reaches over the other, and the most that it may hide of it.
GAP = 1
OVERLAP = 1
HIDDEN = 0.38


class Placed(NamedTuple):
    """An object at its centre, with its side; units of the picture's side."""

    name: str
    x: float
    y: float
    side: float


class Scene(NamedTuple):
    """What a caption says and where it is drawn; later objects cover earlier ones."""

    caption: str
    background: str
    placed: tuple[Placed, ...]
    kind: str = "single"
    claim: Claim = Claim(())


def is_heldout(kind: str, claim: Claim) -> bool:
    """Return whether what a scene shows is kept from training.

    The key of a single object is (size, object, background), never held out on white;
    of a count (number, object); of a relation (object, relation, object), with right of
    and below turned round; of "and" the unordered pair of sized objects. Backgrounds of
    scenes with several objects do not count: such a combination is unseen on every
    background. Words do not count either.
    """
    first = claim.things[0]
    if kind == "single":
        if claim.background in ("", "white"):
            return False
        key = (first.size, first.name, claim.background)
    elif kind == "count":
        key = (first.number, first.name)
    elif kind == "and":
        key = tuple(sorted((thing.size, thing.name) for thing in claim.things))
    else:
        names, relation = [thing.name for thing in claim.things], claim.relation
        if relation in ("right of", "below"):
            relation = {"right of": "left of", "below": "above"}[relation]
            names = names[::-1]
        key = (names[0], relation, names[1])
    return order.fraction(f"emoji: {kind} {key}") < HELDOUT


def at(name: str, left: int, top: int, side: int) -> Placed:
    """Place an object by its corner and side in cells."""
    return Placed(
        name, (left + side / 2) / LATTICE, (top + side / 2) / LATTICE, side / LATTICE
    )


def in_row(named: list[str], sides: list[int], horizontal: bool, gap: int):
    """Place objects in the middle of the picture along one axis, in order.

    `gap` cells lie between them; below 0 each reaches over the next by so many. Half
    cells are rounded down.
    """
    along = (LATTICE - sum(sides) - gap * (len(sides) - 1)) // 2
    placed = []
    for name, side in zip(named, sides, strict=True):
        across = (LATTICE - side) // 2
        left, top = (along, across) if horizontal else (across, along)
        placed.append(at(name, left, top, side))
        along += side + gap
    return tuple(placed)


def in_grid(name: str, number: int) -> tuple[Placed, ...]:
    """Place three or four equal objects in two rows; three stand as a pyramid."""
    half = LATTICE // 2
    rows = ((half // 2,), (0, half)) if number == 3 else ((0, half),) * 2
    return tuple(
        at(name, left, top, COUNT_SIDE)
        for row, top in zip(rows, (0, half), strict=True)
        for left in row
    )


def claimed(draw: order.Draw, kind: str) -> Claim:
    """Draw what a scene of a kind shows, its background aside."""
    name = draw.choose(sprites.names())
    if kind == "single":
        return Claim((Thing(1, draw.choose(("", "", "big", "small")), name),))
    if kind == "count":
        return Claim((Thing(2 + draw.below(3), "", name),))
    other = draw.choose(sprites.names())
    while other == name:
        other = draw.choose(sprites.names())
    relation = draw.choose(emoji_words.RELATIONS) if kind == "relation" else ""
    sizes = draw.choose((("", ""), ("big", "small"), ("small", "big")))
    if relation and draw.below(2):
        sizes = ("", "")
    return Claim((Thing(1, sizes[0], name), Thing(1, sizes[1], other)), relation)


def place(draw: order.Draw, claim: Claim) -> tuple[Placed, ...]:
    """Draw where the objects of a claim stand."""
    number, size, name = claim.things[0]
    if len(claim.things) == 2:
        return place_pair(draw, claim)
    if number == 1:
        return in_row([name], [SINGLE_SIDE[size]], horizontal=True, gap=0)
    if number > 2:
        return in_grid(name, number)
    return in_row([name] * 2, [COUNT_SIDE] * 2, horizontal=True, gap=GAP)


def place_pair(draw: order.Draw, claim: Claim) -> tuple[Placed, ...]:
    """Place two objects as claimed, the first left where nothing is, in any order.

    The order is that of drawing: either may stand behind.
    """
    named = [thing.name for thing in claim.things]
    sides = [PAIR_SIDE[thing.size] for thing in claim.things]
    turned = claim.relation in ("right of", "below")
    horizontal = claim.relation not in ("above", "below")
    if turned:
        named, sides = named[::-1], sides[::-1]
    edges = ("right", "left") if horizontal else ("bottom", "top")
    # Either may stand behind of which the other then hides little enough.
    hidden = [sprites.edge(name, edge) for name, edge in zip(named, edges, strict=True)]
    behind = [i for i, share in enumerate(hidden) if share <= HIDDEN]
    overlapping = draw.uniform() < OVERLAPPING and len(behind) > 0
    gap = -OVERLAP if overlapping else min(GAP, LATTICE - sum(sides))
    placed = in_row(named, sides, horizontal, gap)
    back = draw.choose(behind) if overlapping else 0
    return placed[::-1] if back else placed


def scene(
    seed: int, index: int, split: str = "train", kinds: Mapping[str, float] = KINDS
) -> Scene:
    """Make the scene number `index` of a split; a pure function."""
    draw = order.Draw(seed, index, SPLITS.index(split))
    kind = draw.weighted(kinds)
    while True:
        claim = claimed(draw, kind)
        if draw.uniform() < NAMED_BACKGROUND:
            claim = claim._replace(background=draw.choose(tuple(BACKGROUNDS)))
        if is_heldout(kind, claim) == (split == "heldout"):
            break
    caption = plain = emoji_words.plain(claim)
    if draw.uniform() < PARAPHRASED:
        caption = emoji_words.paraphrase(draw, claim)
    claim = claim._replace(paraphrased=caption != plain)
    return Scene(caption, claim.background or "white", place(draw, claim), kind, claim)


def worded_scene(seed: int, index: int, split: str = "train") -> Scene:
    """Make a scene for text pretraining: more often a relation."""
    return scene(seed, index, split, WORDED_KINDS)


def spoiled_scene(seed: int, index: int, split: str = "train") -> Scene:
    """Make a scene in which, in training, an object may be half another.

    Its name is then two names with "|" between: it is nothing recognisable. No ground
    is rarer than others here, unless what the scene shows is held out on it.
    """
    plain = scene(seed, index, split)
    if split != "train":
        return plain
    draw = order.Draw(seed, index, len(SPLITS))
    ground = draw.choose(tuple(BACKGROUNDS))
    if not is_heldout(plain.kind, plain.claim._replace(background=ground)):
        plain = plain._replace(background=ground)
    if draw.uniform() >= SPOILED:
        return plain
    placed = list(plain.placed)
    which = draw.below(len(placed))
    name = other = placed[which].name
    while other == name:
        other = draw.choose(sprites.names())
    placed[which] = placed[which]._replace(name=f"{name}|{other}")
    return plain._replace(placed=tuple(placed))


def labels(scene: Scene) -> dict[str, np.ndarray]:
    """Return what a detector should find.

    "objects" float32 [4, 4] holds (class, x, y, side) of each object, its class the
    place of its name in the sprite sheet, one past the last for what is nothing
    recognisable, -1 in rows without an object; "background" int32 is the place in
    BACKGROUNDS.
    """
    objects = np.full((MOST, 4), -1.0, np.float32)
    names = sprites.names()
    for row, (name, *where) in zip(objects, scene.placed, strict=False):
        row[:] = (names.index(name) if name in names else len(names), *where)
    ground = list(BACKGROUNDS).index(scene.background)
    return {"objects": objects, "background": np.array(ground, np.int32)}


def grounding(scene: Scene) -> dict[str, np.ndarray]:
    """Return how the named things look and where, for text pretraining.

    "looks" float32 [K] is the sum of the things' looks, "layout" float32 [J, 64] that
    of each object's first J looks in the cells that it covers.
    """
    names, looks = sprites.names(), sprites.looks()
    layout = np.zeros((GROUNDED, LATTICE, LATTICE), np.float32)
    for name, x, y, side in scene.placed:
        left, top = (round(LATTICE * (at - side / 2)) for at in (x, y))
        cells = round(LATTICE * side)
        where = np.s_[:, top : top + cells, left : left + cells]
        layout[where] += looks[names.index(name), :GROUNDED, None, None]
    things = [names.index(thing.name) for thing in scene.claim.things]
    return {
        "looks": looks[things].sum(0),
        "layout": layout.reshape(GROUNDED, LATTICE**2),
    }


def caption(scene: Scene) -> str:
    """Return the scene's caption."""
    return scene.caption


def reworded(scene: Scene, draw: order.Draw) -> str:
    """Return the scene's claim in words drawn anew."""
    return emoji_words.paraphrase(draw, scene.claim)


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
        pixels = sprites.cut(name.partition("|")[0], x, y, side, box)
        if "|" in name:
            right = sprites.cut(name.partition("|")[2], x, y, side, box)
            pixels = np.where(np.arange(box[0], box[2])[:, None] < x, pixels, right)
        part = image[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
        behind = part * (255 - pixels[..., 3:].astype(np.uint16))
        part[:] = np.minimum(pixels[..., :3] + (behind + 127) // 255, 255)
    return image
