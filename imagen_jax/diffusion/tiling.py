"""Pictures larger than memory: the network sees one tile after another."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import prediction


def tiled(
    denoiser: prediction.Denoiser, tile: int, overlap: float = 0.25, align: int = 1
) -> prediction.Denoiser:
    """A prediction of a whole picture, blended from the predictions of its tiles.

    Bar-Tal et al. 2023 (MultiDiffusion): at every step the tiles' predictions of x
    are averaged where they overlap, so that all tiles go on from one picture and no
    seam can grow between them; here the weights fall to the tiles' edges, where the
    network knows least. Noise and z stay one field over the whole picture. Of the
    network's activations only one tile's are in memory at a time; z, the planes and the
    blended prediction are whole.

    What a tile does not see, the network does not know: its norms' statistics are the
    tile's, attention reaches no further, and coordinates would be wrong.

    Args:
      denoiser: (z, level, cond) -> Prediction; around the network, inside guidance and
        thresholding.
      tile: side in pixels. A picture no larger is seen whole.
      overlap: of neighbours at least, as a share of the tile, in [0, 1).
      align: tiles begin at multiples of it; the tile and the picture's sides must be
        multiples too.

    Raises:
      ValueError: at the call, for sides that are no multiples of `align`, or a control
        picture, which no rule cuts.
    """

    def blended(z, level, cond: Conditioning):
        height, width = z.shape[1:3]
        if height <= tile and width <= tile:
            return denoiser(z, level, cond)
        if any(side % align for side in (height, width, tile)):
            raise ValueError(
                f"tiled: height, width and tile must be multiples of {align}, got "
                f"{height} x {width} and {tile}."
            )
        if cond.control is not None:
            raise ValueError("tiled: a control picture cannot be cut; draw it whole.")
        size = (min(tile, height), min(tile, width))
        rows, columns = (places(side, tile, overlap, align) for side in (height, width))
        down, across = ramps(rows, height, size[0]), ramps(columns, width, size[1])
        grid = np.indices((len(rows), len(columns))).reshape(2, -1)
        tops, lefts = jnp.asarray(rows)[grid[0]], jnp.asarray(columns)[grid[1]]
        weights = down[grid[0]][:, :, None] * across[grid[1]][:, None, :]

        def cut(a, top, left):
            corner = (0, top, left, 0)
            return lax.dynamic_slice(a, corner, (a.shape[0], *size, a.shape[3]))

        def predict(place):
            planes = None if cond.planes is None else cut(cond.planes, *place)
            told = dataclasses.replace(cond, planes=planes)
            found = denoiser(cut(z, *place), level, told)
            return found.x, found.gamma

        def add(total, tile):
            part, weight, (top, left) = tile
            weighed = cut(total, top, left) + weight[None, :, :, None] * part
            return lax.dynamic_update_slice(total, weighed, (0, top, left, 0)), None

        def join(parts):
            total = jnp.zeros(z.shape, parts.dtype)
            return lax.scan(add, total, (parts, jnp.asarray(weights), (tops, lefts)))[0]

        x, gamma = jax.tree.map(join, lax.map(predict, (tops, lefts)))
        return prediction.from_x(x, z, level)._replace(gamma=gamma)

    return blended


def places(side: int, tile: int, overlap: float, align: int = 1) -> np.ndarray:
    """Where tiles begin along a side: evenly, overlapping by a share of the tile.

    int32, rising, multiples of `align`; the first is 0, the last tile ends at `side`.

    Raises:
      ValueError: for an overlap outside [0, 1).
    """
    if not 0.0 <= overlap < 1.0:
        raise ValueError(f"tiled: overlap must be in [0, 1), got {overlap}.")
    if side <= tile:
        return np.zeros(1, np.int32)
    # At least a multiple of `align` further, or tiles would not move on.
    stride = max(int(tile * (1.0 - overlap)) // align, 1) * align
    count = math.ceil((side - tile) / stride) + 1
    even = np.linspace(0, (side - tile) // align, count)
    return (np.floor(even + 1e-6) * align).astype(np.int32)


def ramps(starts: np.ndarray, side: int, tile: int) -> np.ndarray:
    """Weights of each tile's places along a side, float32 [tiles, tile].

    Half a cosine's wave over each overlap, 1 elsewhere; their sum is 1 everywhere. Each
    tile's outermost pixels weigh least: a convolution's padding reaches them first.
    """
    weights = np.ones((len(starts), tile))
    for i in range(len(starts) - 1):
        shared = int(starts[i]) + tile - int(starts[i + 1])
        wave = 0.5 - 0.5 * np.cos(np.pi * (np.arange(shared) + 0.5) / max(shared, 1))
        weights[i + 1, :shared] *= wave
        weights[i, tile - shared :] *= wave[::-1]
    total = np.zeros(side)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    rows = [w / total[s : s + tile] for s, w in zip(starts, weights, strict=True)]
    return np.stack(rows).astype(np.float32)
