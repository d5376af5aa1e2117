"""A small network that says what stands where in a picture of 64 x 64 pixels.

One stage, no anchors: each cell of a 16 x 16 grid says whether an object's centre lies
by it, which object that is, and how it lies (after Zhou et al. 2019, "Objects as
points", and Tian et al. 2019, "FCOS"). It judges what the cascades draw and has no part
in drawing.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.models import blocks, layers
from imagen_jax.types import Array

RESOLUTION = 64
GRID = 16
# Log-odds of an object by a cell before training: about 2 of 256 cells have one.
RARE = -4.5


class Detections(NamedTuple):
    """What the network says about each picture; G = 16 cells a side, all float32.

    Attributes:
      present: log-odds [B, G, G] that an object's centre lies by the cell.
      kind: logits [B, G, G, K + 1] of which object; the last: none that is known.
      offset: (x, y) [B, G, G, 2] from the cell's centre to the object's, in cells.
      log_side: natural log [B, G, G] of the object's side in units of the picture's.
      background: logits [B, N] of the ground's colour.
    """

    present: Array
    kind: Array
    offset: Array
    log_side: Array
    background: Array


class Detector(nn.Module):
    """ResNet blocks at 16 x 16, a detour over 8 x 8, one linear layer a question.

    Attributes:
      objects: number of object names, K.
      backgrounds: number of ground colours, N.
      stem_channels: at 32 x 32.
      channels: at 16 x 16.
      deep_channels: at 8 x 8, where a cell sees the whole picture.
      dtype: of activations.
    """

    objects: int
    backgrounds: int
    stem_channels: int = 32
    channels: int = 96
    deep_channels: int = 160
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Detections:
        """Pictures [B, 64, 64, 3] in [-1, 1] -> what is seen in them."""
        if x.shape[1:] != (RESOLUTION, RESOLUTION, 3):
            raise ValueError(
                f"Detector: pictures must be [B, {RESOLUTION}, {RESOLUTION}, 3], got "
                f"{tuple(x.shape)}. Resize them first."
            )
        h = layers.space_to_depth(x.astype(self.dtype), 2)
        h = nn.silu(self._conv(self.stem_channels, 3, "stem_32")(h))
        h = self._conv(self.channels, 3, "stem_16", stride=2)(h)
        h = self._block(self.channels, "before_0")(h)
        h = self._block(self.channels, "before_1")(h)
        deep = self._block(self.deep_channels, "deep_0", resample="down")(h)
        deep = self._block(self.deep_channels, "deep_1")(deep)
        h = h + self._conv(self.channels, 1, "up")(layers.nearest_up(deep))
        h = self._block(self.channels, "after")(h)
        groups = layers.groups(self.channels)
        h = nn.silu(layers.GroupNorm(groups, name="norm", dtype=self.dtype)(h))
        return self._answers(h)

    def _answers(self, h: Array) -> Detections:
        """Features [B, G, G, C] -> what is seen."""
        place = self._conv(4, 1, "place")(h).astype(jnp.float32)
        kind = self._conv(self.objects + 1, 1, "kind")(h).astype(jnp.float32)
        # The mean tells how much of the picture looks so, the maximum whether any does.
        whole = jnp.concatenate([h.mean((1, 2)), h.max((1, 2))], axis=-1)
        ground = layers.Dense(
            self.backgrounds, ("embed", None), name="background", dtype=self.dtype
        )(whole)
        return Detections(
            present=place[..., 0] + RARE,
            kind=kind,
            offset=place[..., 1:3],
            log_side=place[..., 3] - 1.0,
            background=ground.astype(jnp.float32),
        )

    def _conv(self, features: int, kernel: int, name: str, stride: int = 1):
        return layers.Conv(features, kernel, name=name, stride=stride, dtype=self.dtype)

    def _block(self, channels: int, name: str, resample: str = "none"):
        return blocks.ResNetBlock(
            channels, resample=resample, dtype=self.dtype, name=name
        )
