"""Is the picture what the caption says? An automatic check of the shapes task.

The checker shares only the palette with the task: it cuts the picture into blobs of
one palette colour, fits each blob with masks of its own making, and compares what it
saw with what the caption says: every object's shape and colour, their relation, and
nothing else in the picture. It is meant for soft samples of 16 x 16 pixels and up.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagen_jax.data import shapes
from imagen_jax.types import UInt8, typechecked

LARGEST = 32
# A blob counts as an object from this part of the picture's area on; the smallest
# shape has 0.06. Of all that is no object, faint or in specks, so much is forgiven.
SPECK = 0.015
STRAY = 0.03
SOLID = 0.5
FAINT = 0.3
# Mean absolute difference from the best mask, as a part of both areas.
MISFIT = 0.22

PHRASE = re.compile(
    rf"an? ({'|'.join(shapes.COLORS)}) ({'|'.join(shapes.SHAPES)})"
    rf"(?: ({'|'.join(shapes.RELATIONS)}) an? ({'|'.join(shapes.COLORS)})"
    rf" ({'|'.join(shapes.SHAPES)}))?"
)
# Area of each shape of half extent 1, and how far its centroid lies below the middle.
AREAS = {"circle": np.pi, "square": 1.8**2, "triangle": 2.0, "cross": 2.2576}
CENTROIDS = {"circle": 0.0, "square": 0.0, "triangle": 1.0 / 3.0, "cross": 0.0}


class Seen(NamedTuple):
    """One object found in a picture; x and y in units of the picture's side."""

    color: str
    shape: str
    x: float
    y: float
    misfit: float


class Verdict(NamedTuple):
    """Whether a picture is right, why not, and what was seen in it."""

    right: bool
    reason: str
    seen: tuple[Seen, ...]

    def __bool__(self) -> bool:
        return self.right


class Claim(NamedTuple):
    """What a caption says: (color, shape) of one or two things, and the relation."""

    things: tuple[tuple[str, str], ...]
    relation: str | None


def parse(caption: str) -> Claim:
    """Read a caption of the shapes task.

    Raises:
        ValueError: for a sentence that the task cannot say.
    """
    match = PHRASE.fullmatch(caption.strip())
    if match is None:
        raise ValueError(
            f"shapes_checker: caption must be one of the shapes task, got {caption!r}, "
            'e.g. "a red circle left of a blue square".'
        )
    color, shape, relation, other_color, other_shape = match.groups()
    if relation is None:
        return Claim(((color, shape),), None)
    return Claim(((color, shape), (other_color, other_shape)), relation)


def shrink(image: np.ndarray) -> np.ndarray:
    """Average a large picture down to at most 32 pixels a side, float32."""
    factor = -(-max(image.shape[:2]) // LARGEST)
    height, width = (side // factor * factor for side in image.shape[:2])
    blocks = image[:height, :width].reshape(
        height // factor, factor, width // factor, factor, 3
    )
    return blocks.astype(np.float32).mean((1, 3))


def unmix(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read each pixel as ground + alpha (color - ground).

    Returns the alphas [H, W, colors], clipped to [0, 1], and the index [H, W] of the
    colour that leaves the smallest rest.
    """
    ground = np.asarray(shapes.BACKGROUND, np.float32)
    palette = np.asarray(list(shapes.COLORS.values()), np.float32) - ground
    offset = pixels - ground
    alphas = offset @ palette.T / (palette**2).sum(1)
    alphas = np.clip(alphas, 0.0, 1.0)
    rest = np.linalg.norm(offset[..., None, :] - alphas[..., None] * palette, axis=-1)
    return alphas, rest.argmin(-1)


def blobs(core: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Return the connected parts of `core` with one label each, as bool masks."""
    left = core.copy()
    found = []
    for start in zip(*np.nonzero(core), strict=True):
        if not left[start]:
            continue
        mask, queue = np.zeros_like(core), [start]
        left[start] = False
        while queue:
            row, column = queue.pop()
            mask[row, column] = True
            for there in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):
                inside = 0 <= there[0] < core.shape[0] and 0 <= there[1] < core.shape[1]
                if inside and left[there] and labels[there] == labels[start]:
                    left[there] = False
                    queue.append(there)
        found.append(mask)
    return found


def mask_of(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return whether points lie inside a shape of half extent 1, y down."""
    if shape == "circle":
        return x * x + y * y <= 1.0
    if shape == "square":
        return (np.abs(x) <= 0.9) & (np.abs(y) <= 0.9)
    if shape == "triangle":
        return (np.abs(y) <= 1.0) & (2.0 * np.abs(x) <= y + 1.0)
    long, short = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    return (long <= 1.0) & (short <= 0.34)


def soften(masks: np.ndarray) -> np.ndarray:
    """Blur [..., H, W] by 1 2 1 along both axes, zeros outside."""
    for axis in (-2, -1):
        pad = [(0, 0)] * masks.ndim
        pad[axis] = (1, 1)
        padded = np.pad(masks, pad)
        n = masks.shape[axis]
        parts = [np.take(padded, np.arange(i, i + n), axis) for i in range(3)]
        masks = (parts[0] + 2.0 * parts[1] + parts[2]) / 4.0
    return masks


@functools.cache
def nudges() -> np.ndarray:
    """Shifts (dx, dy) in pixels and scales that a fit tries, [M, 3]."""
    steps = (-0.3, 0.0, 0.3)
    return np.array(
        [
            (dx, dy, scale)
            for dx in steps
            for dy in steps
            for scale in (0.92, 1.0, 1.08)
        ],
        np.float32,
    )


def misfit(alpha: np.ndarray, shape: str) -> float:
    """Return how badly the best mask of a shape fits a patch of alphas, in [0, 1].

    Position and size start from the patch's moments and are nudged; masks are tried
    sharp and softened.
    """
    mass = alpha.sum()
    rows, columns = np.arange(alpha.shape[0]) + 0.5, np.arange(alpha.shape[1]) + 0.5
    radius = np.sqrt(mass / AREAS[shape])
    x = (alpha.sum(0) @ columns) / mass
    y = (alpha.sum(1) @ rows) / mass - CENTROIDS[shape] * radius
    nudge = nudges()
    points = 5 if max(alpha.shape) <= 12 else 3
    sub = (np.arange(points) + 0.5) / points
    fine_y = (np.arange(alpha.shape[0])[:, None] + sub).ravel()
    fine_x = (np.arange(alpha.shape[1])[:, None] + sub).ravel()
    size = radius * nudge[:, 2, None]
    inside = mask_of(
        shape,
        ((fine_x - x - nudge[:, 0, None]) / size)[:, None, :],
        ((fine_y - y - nudge[:, 1, None]) / size)[:, :, None],
    )
    masks = inside.reshape(
        len(nudge), alpha.shape[0], points, alpha.shape[1], points
    ).mean((2, 4))
    masks = np.concatenate([masks, soften(masks)])
    gaps = np.abs(masks - alpha).sum((1, 2)) / (masks.sum((1, 2)) + mass)
    return float(gaps.min())


def identify(mask: np.ndarray, others: np.ndarray, alphas: np.ndarray) -> Seen:
    """Name the colour and shape of one blob.

    `others` marks the pixels of the other blobs, `alphas` [H, W, colors] is from
    `unmix`. One pixel around the blob is looked at too: its soft edge.
    """
    rows, columns = (np.nonzero(mask.any(axis))[0] for axis in (1, 0))
    top, bottom = max(rows[0] - 1, 0), min(rows[-1] + 2, mask.shape[0])
    left, right = max(columns[0] - 1, 0), min(columns[-1] + 2, mask.shape[1])
    window = np.s_[top:bottom, left:right]
    alpha = np.where(others[window], 0.0, alphas[window])
    alpha = np.pad(alpha, 1)
    fits = {shape: misfit(alpha, shape) for shape in shapes.SHAPES}
    shape = min(fits, key=lambda name: fits[name])
    y, x = (axis.mean() + 0.5 for axis in np.nonzero(mask))
    return Seen("", shape, x / mask.shape[1], y / mask.shape[0], fits[shape])


@typechecked
def look(image: UInt8[np.ndarray, "H W 3"]) -> tuple[list[Seen], float]:
    """Find the objects, and the part of the picture that is neither they nor ground."""
    pixels = shrink(image)
    alphas, labels = unmix(pixels)
    strength = np.take_along_axis(alphas, labels[..., None], -1)[..., 0]
    area = labels.size
    found = blobs(strength > SOLID, labels)
    large = [mask for mask in found if mask.sum() > SPECK * area]
    everything = np.any(large, axis=0) if large else np.zeros_like(labels, bool)
    around = soften(everything.astype(np.float32)) > 0.0
    stray = ((strength > FAINT) & ~around).sum()
    seen = []
    for mask in large:
        color = int(labels[mask][0])
        thing = identify(mask, everything & ~mask, alphas[..., color])
        seen.append(thing._replace(color=tuple(shapes.COLORS)[color]))
    return seen, float(stray / area)


def holds(relation: str, first: Seen, second: Seen) -> bool:
    """Return whether the relation is the one in which two objects mainly stand."""
    dx, dy = second.x - first.x, second.y - first.y
    if abs(dx) > abs(dy):
        return relation == ("left of" if dx > 0 else "right of")
    return relation == ("above" if dy > 0 else "below")


@typechecked
def check_shapes(image: UInt8[np.ndarray, "H W 3"], caption: str) -> Verdict:
    """Check that a picture shows all that the caption says and nothing else.

    The verdict is true or false, with a reason and the objects seen.

    Raises:
        ValueError: for a caption that is not of the shapes task.
    """
    claim = parse(caption)
    found, stray = look(image)
    seen = tuple(found)
    if len(seen) != len(claim.things):
        reason = f"{len(claim.things)} objects expected, {len(seen)} seen"
        return Verdict(False, reason, seen)
    if stray > STRAY:
        return Verdict(False, "something else is in the picture", seen)
    unclear = [thing for thing in seen if thing.misfit > MISFIT]
    if unclear:
        return Verdict(False, f"unclear {unclear[0].color} shape", seen)
    shown = [(thing.color, thing.shape) for thing in seen]
    if sorted(shown) != sorted(claim.things):
        words = ", ".join(f"{color} {shape}" for color, shape in shown)
        return Verdict(False, f"seen {words}", seen)
    if claim.relation is None:
        return Verdict(True, "", seen)
    ordered = seen if shown[0] == claim.things[0] else seen[::-1]
    either = shown[0] == shown[1] and holds(claim.relation, *ordered[::-1])
    if either or holds(claim.relation, *ordered):
        return Verdict(True, "", seen)
    return Verdict(False, f"not {claim.relation}", seen)


def fraction_right(images: Sequence[np.ndarray], captions: Sequence[str]) -> float:
    """Return the part of the pictures that are wholly what their captions say."""
    verdicts = [
        bool(check_shapes(image, caption))
        for image, caption in zip(images, captions, strict=True)
    ]
    return float(np.mean(verdicts))
