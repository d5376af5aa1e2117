"""Training the scorer's detector, and reading objects off its grid."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imagen_jax.cascade import images
from imagen_jax.models import detector
from imagen_jax.types import Array

# A cell belongs to an object when its middle lies so near the centre, in units of the
# object's side, along both axes; between the two radii it counts neither way.
INNER = 0.2
OUTER = 0.35
# Of errors in x and y, in cells, and in the log of the side, which are much smaller.
BOX_WEIGHTS = (1.0, 1.0, 2.0)
# An object is seen where `present` exceeds this probability; two detections whose
# centres are nearer than this part of the larger side are of one object.
PRESENT = 0.5
SEPARATE = 0.4


class Object(NamedTuple):
    """An object seen; x, y and side in units of the picture's side."""

    label: int
    x: float
    y: float
    side: float
    confidence: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionTask:
    """Learning a detector from labelled pictures.

    Batches are {"image" uint8 [B, R, R, 3], "objects" float32 [B, N, 4] (class, x, y,
    side; class -1 fills up), "background" int32 [B]}.

    Attributes:
      module: the network.
      resolution: R.
      blur, noise, colour: the most of each disturbance of a training picture, in
        pixels squared and in units of [-1, 1], so that soft or noisy pictures are
        judged by what they show.
    """

    module: detector.Detector
    resolution: int = 64
    blur: float = 0.8
    noise: float = 0.15
    colour: float = 0.08

    def init(self, key: Array) -> Any:
        """Parameters of the network, boxed with their logical axes."""
        x = jnp.zeros((1, self.resolution, self.resolution, 3))
        return self.module.init(key, x)["params"]

    def disturb(self, key: Array, x: Array) -> Array:
        """Blur, shift colours and add noise, by amounts drawn for each picture."""
        keys = jax.random.split(key, 4)
        shape = (x.shape[0], 1, 1, 1)
        soft = jax.random.uniform(keys[0], shape, maxval=self.blur)
        size = (self.resolution, self.resolution)
        small = images.resize(x, (self.resolution // 2, self.resolution // 2))
        x = x + soft * (images.resize(small, size) - x)
        shift = jax.random.uniform(keys[1], (x.shape[0], 1, 1, 3), minval=-1.0)
        x = x + self.colour * shift
        amount = self.noise * jax.random.uniform(keys[2], shape) ** 2
        return x + amount * jax.random.normal(keys[3], x.shape)

    def loss(
        self, key: Array, params: Any, frozen: Any, batch: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Per-example losses [B] and metrics."""
        del frozen
        x = self.disturb(key, images.to_float(batch["image"]))
        seen: Any = self.module.apply({"params": params}, x)
        owner, inner, near = assign(batch["objects"], seen.present.shape[1])
        mine = jnp.take_along_axis(
            batch["objects"][:, None, None], owner[..., None, None], axis=3
        )[..., 0, :]
        present = optax.sigmoid_binary_cross_entropy(seen.present, inner * 1.0)
        present = jnp.where(inner | ~near, present, 0.0).sum((1, 2))
        labels = jnp.maximum(mine[..., 0].astype(jnp.int32), 0)
        named = optax.softmax_cross_entropy_with_integer_labels(seen.classes, labels)
        box = jnp.abs(seen.box - box_targets(mine, seen.present.shape[1]))
        box = box @ jnp.asarray(BOX_WEIGHTS)
        cells = jnp.maximum(inner.sum((1, 2)), 1)
        named, box = (
            jnp.where(inner, a, 0.0).sum((1, 2)) / cells for a in (named, box)
        )
        ground = optax.softmax_cross_entropy_with_integer_labels(
            seen.background, batch["background"]
        )
        right = jnp.where(inner, seen.classes.argmax(-1) == labels, False)
        metrics = {
            "accuracy": right.sum() / jnp.maximum(inner.sum(), 1),
            "present": present.mean(),
            "box": box.mean(),
        }
        return present / 10 + named + box + ground, metrics


def middles(grid: int) -> Array:
    """The middles of the cells along one axis, in units of the picture's side."""
    return (jnp.arange(grid) + 0.5) / grid


def assign(objects: Array, grid: int) -> tuple[Array, Array, Array]:
    """Which object each cell belongs to.

    Args:
      objects: [B, N, 4] (class, x, y, side), class -1 where there is none.
      grid: G.

    Returns:
      (owner, inner, near): the index of the nearest object in units of its side, and
      whether the cell lies within INNER and OUTER of its side, all [B, G, G].
    """
    there = middles(grid)
    label, x, y, side = (objects[:, None, None, :, i] for i in range(4))
    away = jnp.maximum(
        jnp.abs(there[None, None, :, None] - x), jnp.abs(there[None, :, None, None] - y)
    )
    # However small, an object owns the cell that its centre lies in.
    side = jnp.maximum(side, 0.5 / grid / INNER)
    away = jnp.where(label >= 0, away / side, jnp.inf)
    nearest = away.min(-1)
    return away.argmin(-1), nearest <= INNER, nearest <= OUTER


def box_targets(mine: Array, grid: int) -> Array:
    """Offsets in cells and log sides of the object that owns each cell."""
    there = middles(grid)
    return jnp.stack(
        [
            (mine[..., 1] - there[None, None, :]) * grid,
            (mine[..., 2] - there[None, :, None]) * grid,
            jnp.log(jnp.maximum(mine[..., 3], 1e-3)),
        ],
        axis=-1,
    )


def decode(seen: detector.Detections) -> list[list[Object]]:
    """Objects of each picture, the most confident first.

    Each object is found by several cells. The most confident one tells whether it is
    there; all of them, weighted by their confidence, where, how large and what it is.
    """
    present, box, classes = (
        np.asarray(a, np.float64) for a in (seen.present, seen.box, seen.classes)
    )
    probability = 1.0 / (1.0 + np.exp(-present))
    there = np.asarray(middles(present.shape[1]), np.float64)
    centres = np.stack(np.meshgrid(there, there), axis=-1)
    centres = centres + box[..., :2] / present.shape[1]
    found = []
    for b in range(len(present)):
        cells = np.argwhere(probability[b] > PRESENT)
        order = np.argsort(-probability[b][tuple(cells.T)], kind="stable")
        rows, columns = cells[order].T
        sure = probability[b, rows, columns]
        groups = same_object(
            centres[b, rows, columns], np.exp(box[b, rows, columns, 2])
        )
        weights = classes[b, rows, columns]
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        named = weights / weights.sum(-1, keepdims=True)
        objects = []
        for group in groups:
            share = sure[group] / sure[group].sum()
            where = b, rows[group], columns[group]
            x, y = share @ centres[where]
            side = np.exp(share @ box[where][:, 2])
            names = share @ named[group]
            label = int(names.argmax())
            confidence = float(sure[group[0]] * names[label])
            objects.append(Object(label, float(x), float(y), float(side), confidence))
        found.append(objects)
    return found


def same_object(centres: np.ndarray, sides: np.ndarray) -> list[list[int]]:
    """Group detections, the most confident first, whose centres are near.

    Near is SEPARATE of the larger side: the far end of an object that fills the picture
    looks like a smaller one.

    Args:
      centres: [N, 2] in the units of the sides.
      sides: [N].

    Returns:
      Indices of the detections of each object, its most confident one first.
    """
    groups: list[list[int]] = []
    for i, (centre, side) in enumerate(zip(centres, sides, strict=True)):
        for group in groups:
            away = np.abs(centre - centres[group[0]]).max()
            if away < SEPARATE * max(side, sides[group[0]]):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups
