"""A small network that says what stands where in a picture, and on which ground.

One stage, no anchors: each cell of a grid a quarter of the picture's side says whether
an object's centre is by it, which object that is, and where and how large it is (after
Tian et al. 2019, "FCOS", and Zhou et al. 2019, "Objects as points"). It judges what the
cascades draw and has no part in drawing.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.models import blocks, layers
from imagen_jax.types import Array

STRIDE = 4
# Log-odds of an object by a cell before training: about 3 of 256 cells have one.
RARE = -4.5


class Detections(NamedTuple):
    """What the network says about each picture; G cells a side, all float32.

    Attributes:
      present: log-odds [B, G, G] that an object's centre is by the cell.
      classes: logits [B, G, G, num_classes] of which object.
      box: [B, G, G, 3]: (x, y) from the cell's middle to the object's, in cells, and
        the natural log of the object's side in units of the picture's.
      background: logits [B, num_backgrounds] of the ground's colour.
    """

    present: Array
    classes: Array
    box: Array
    background: Array


class Detector(nn.Module):
    """ResNet blocks at a quarter of the size, a detour over an eighth, linear answers.

    Attributes:
      num_classes: how many names of objects.
      num_backgrounds: how many colours of grounds.
      stem_channels: at half of the picture's size.
      channels: at a quarter of it.
      deep_channels: at an eighth, where a cell sees the whole of 64 pixels.
      dtype: of activations.
    """

    num_classes: int
    num_backgrounds: int
    stem_channels: int = 32
    channels: int = 96
    deep_channels: int = 160
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Detections:
        """Pictures [B, H, W, 3] in [-1, 1] -> what is seen in them."""
        blocks.check_size("Detector", x, 2 * STRIDE)
        h = layers.space_to_depth(x.astype(self.dtype), 2)
        h = nn.silu(self._conv(self.stem_channels, 3, "stem_half")(h))
        h = self._conv(self.channels, 3, "stem_quarter", stride=2)(h)
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
        present = self._conv(1, 1, "present")(h)[..., 0]
        classes = self._conv(self.num_classes, 1, "classes")(h)
        box = self._conv(3, 1, "box")(h)
        # The mean tells how much of the picture looks so, the maximum whether any does.
        whole = jnp.concatenate([h.mean((1, 2)), h.max((1, 2))], axis=-1)
        background = layers.Dense(
            self.num_backgrounds, ("embed", None), name="background", dtype=self.dtype
        )(whole)
        return Detections(
            present=present.astype(jnp.float32) + RARE,
            classes=classes.astype(jnp.float32),
            box=box.astype(jnp.float32),
            background=background.astype(jnp.float32),
        )

    def _conv(self, features: int, kernel: int, name: str, stride: int = 1):
        return layers.Conv(features, kernel, name=name, stride=stride, dtype=self.dtype)

    def _block(self, channels: int, name: str, resample: str = "none"):
        return blocks.ResNetBlock(
            channels, resample=resample, dtype=self.dtype, name=name
        )
