"""Is the picture what the caption says? An automatic check of emoji scenes.

In the manner of GenEval (Ghosh et al. 2023): a detector finds the objects, rules
compare them with the claim. The detector was trained on real renders alone
(`detection`); its errors on held-out ones are measured and printed beside every score.
"""

import dataclasses
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import partitioning
from imagen_jax.data import emoji, sprites
from imagen_jax.data.emoji_words import Claim
from imagen_jax.evaluation import detection
from imagen_jax.types import UInt8, typechecked

# A class less probable than this is no recognisable object.
CERTAIN = 0.5
# Sides between those of two sizes are split at the geometric middle of the ranges.
SINGLE_LIMITS = (0.48, 0.74)
# A big object is at least so much larger than the small one beside it; the data have
# five thirds.
LARGER = 1.2
ATTRIBUTES = ("identity", "count", "relation", "size", "background")
BATCH = 64


class Seen(NamedTuple):
    """One object seen; name "" is nothing recognisable."""

    name: str
    x: float
    y: float
    side: float
    confidence: float


class Scene(NamedTuple):
    """What a picture shows."""

    objects: tuple[Seen, ...]
    background: str


class Verdict(NamedTuple):
    """Which parts of a claim hold; a part that is not claimed is None.

    Attributes:
      identity: the names seen are those claimed, whatever their numbers.
      count: as many objects as claimed.
      relation: the objects stand as claimed.
      size: the objects are as big as claimed.
      background: the ground has the colour claimed (white where none is).
      reason: what is wrong first; "" when all is right.
    """

    identity: bool
    count: bool
    relation: bool | None
    size: bool | None
    background: bool
    reason: str

    @property
    def right(self) -> bool:
        """All that is claimed, and nothing else, is there."""
        return all(getattr(self, name) in (True, None) for name in ATTRIBUTES)

    @property
    def wrong(self) -> int:
        """How many parts are wrong."""
        return sum(getattr(self, name) is False for name in ATTRIBUTES)


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A trained detector.

    Attributes:
      task: its network and resolution.
      params: of the network.
    """

    task: detection.DetectionTask
    params: Any

    def look(self, pictures: UInt8[np.ndarray, "B H W 3"]) -> list[Scene]:
        """Find objects and background in pictures of the scorer's size or larger."""
        scenes = []
        for start in range(0, len(pictures), BATCH):
            some = pictures[start : start + BATCH]
            full = np.concatenate([some, np.repeat(some[-1:], BATCH - len(some), 0)])
            small = shrink(full, self.task.resolution)
            seen = _apply(self.task, self.params, jnp.asarray(small))
            seen = jax.tree.map(partitioning.fetch, seen)
            grounds = seen.background.argmax(-1)
            for objects, ground in zip(detection.decode(seen), grounds, strict=True):
                scenes.append(
                    Scene(
                        tuple(named(thing) for thing in objects),
                        tuple(emoji.BACKGROUNDS)[ground],
                    )
                )
            del scenes[start + len(some) :]
        return scenes


@partial(jax.jit, static_argnums=0)
def _apply(task: detection.DetectionTask, params: Any, x: jax.Array) -> Any:
    return task.module.apply({"params": params}, x)


def named(thing: detection.Object) -> Seen:
    """An object with its name, "" if that is uncertain or it is none that is known."""
    known = thing.label < len(sprites.names()) and thing.confidence > CERTAIN
    name = sprites.names()[thing.label] if known else ""
    return Seen(name, *thing[1:])


@typechecked
def shrink(pictures: UInt8[np.ndarray, "B H W 3"], resolution: int) -> np.ndarray:
    """Average pictures down to `resolution`, float32 in [-1, 1].

    Raises:
      ValueError: unless their side is a multiple of it.
    """
    batch, height, width, _ = pictures.shape
    factor, rest = divmod(height, resolution)
    if rest or not factor or height != width:
        raise ValueError(
            f"Scorer: pictures must be square, with sides that are multiples of "
            f"{resolution}, got {height} x {width}."
        )
    parts = pictures.reshape(batch, resolution, factor, resolution, factor, 3)
    return parts.astype(np.float32).mean((2, 4)) / 127.5 - 1.0


def check(scene: Scene, claim: Claim) -> Verdict:
    """Compare what a picture shows with what its caption says."""
    expected = Counter({thing.name: thing.number for thing in claim.things})
    found = Counter(thing.name for thing in scene.objects)
    identity = set(found) == set(expected)
    count = sum(found.values()) == sum(expected.values())
    whole = found == expected
    # What relates to what, and which is big, can only be told of the right objects.
    relation = whole and holds(scene, claim) if claim.relation else None
    size = None
    if any(thing.size for thing in claim.things):
        size = whole and sized(scene, claim)
    background = scene.background == (claim.background or "white")
    reasons = {
        f"seen: {', '.join(spoken(found)) or 'nothing'}": whole,
        f"not {claim.relation}": relation,
        "wrong size": size,
        f"{scene.background} background": background,
    }
    wrong = [reason for reason, value in reasons.items() if value is False]
    return Verdict(
        identity,
        count,
        relation,
        size,
        background,
        wrong[0] if wrong else "",
    )


def spoken(found: Counter) -> list[str]:
    """Say what was seen: "2 dog", "something unclear"."""
    return [
        f"{number} {name}" if name else "something unclear"
        for name, number in found.items()
    ]


def by_claim(scene: Scene, claim: Claim) -> list[Seen]:
    """The objects of a pair in the order of the claim."""
    return [
        next(seen for seen in scene.objects if seen.name == thing.name)
        for thing in claim.things
    ]


def holds(scene: Scene, claim: Claim) -> bool:
    """Whether the first object stands to the second mainly as claimed."""
    first, second = by_claim(scene, claim)
    dx, dy = second.x - first.x, second.y - first.y
    if abs(dx) > abs(dy):
        return claim.relation == ("left of" if dx > 0 else "right of")
    return claim.relation == ("above" if dy > 0 else "below")


def sized(scene: Scene, claim: Claim) -> bool:
    """Whether the objects are as big as claimed: one by itself, two by comparison."""
    seen = by_claim(scene, claim)
    if len(seen) == 1:
        small, big = SINGLE_LIMITS
        size = claim.things[0].size
        return seen[0].side > big if size == "big" else seen[0].side < small
    sizes = dict(zip((thing.size for thing in claim.things), seen, strict=True))
    return sizes["big"].side > LARGER * sizes["small"].side
