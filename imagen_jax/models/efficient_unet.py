"""The Efficient U-Net of super-resolution (Saharia et al. 2022, appendices B.1 and F).

Most parameters at the low resolutions, down-sampling before and up-sampling after the
convolutions of a block.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.conditioning import Conditioning
from imagen_jax.models import attention as attention_lib
from imagen_jax.models import blocks, embeddings, layers
from imagen_jax.types import Array

MERGES = ("concat", "add")
COMBINES = ("resblock", "block")

# Fields of the paper's sizes. The listings F.2 and F.3 are the same but for the deepest
# attention, and taken literally both count about 5e8 whatever their open points are,
# while section 4.1 says 600M and 400M.
# Differs: SR_256 keeps every printed number; the width of the embedding, which is not
# printed, makes 602M of it. SR_1024 has two blocks fewer at its deepest level, the
# smallest change of a printed number that comes near 400M: 412M.
SR_256 = {
    "channels": (128, 256, 512, 1024),
    "num_res_blocks": (2, 4, 8, 8),
    "strides": (2, 2, 2, 2),
    "attention": ("none", "none", "none", "self"),
    "heads": 8,
    "embedding_features": 2048,
    "text_features": 1024,
}
SR_1024 = {
    **SR_256,
    "num_res_blocks": (2, 4, 8, 6),
    "attention": ("none", "none", "none", "text"),
    "embedding_features": 512,
}


class EfficientUNet(nn.Module):
    """An Efficient U-Net; any multiple of `size_multiple` pixels.

    The low-resolution image comes in `Conditioning.planes`, already at full size.

    Attributes:
      channels: width of each level.
      num_res_blocks: ResNet blocks of each level, on the way down and again up.
      strides: of each level's convolution, 1 for none.
      attention: of each level: "none", "self" (positions and text together) or
        "text" (text only, so that the network stays fully convolutional).
      heads: of every attention layer, whose width is 2 * channels.
      stem_channels: of the first convolution; None: as the first level.
      embedding_features: width of the embedding of noise level, text and the rest;
        None: 4 * the stem's.
      text_features: width to which text tokens are projected once; None: as they
        come.
      combine: where the embedding scales and shifts: "resblock", in every ResNet
        block, or "block", once before them.
      merge: "concat" or "add" a skip connection.
      residual_scaling: divide residual sums by sqrt(2).
      skip_scaling: divide skip connections (merged by "add": the sum) by sqrt(2).
      out_channels: of the result.
      space_to_depth: fold squares of this side into channels at the stem and unfold
        them at the head; 1 is the paper.
      positions: in attention: "none" (the paper) or "coordinates", which ties the
        network to whole pictures: not for training on crops.
      feed_forward: of each level, hidden width, in units of its width, of a gated
        network at each position after attention; 0 is none (the paper). One number,
        or one for each level.
      text_map: width of a map of what the text says about each position
        (`attention.TextMap`), made at the first level with a feed-forward network
        and read by every one; 0 is none (the paper).
      input_skip: add the low-resolution image, scaled by the embedding, to the result
        (`blocks.InputSkip`): for networks that predict x, where the head's norm hides
        what the input already holds.
      dropout: rate inside blocks; acts where a "dropout" stream is given.
      remat: "none"; "block" computes each block again in the backward pass, "full"
        each level and in it each block.
      dtype: of activations; parameters, norm statistics, softmax and the result are
        float32.
    """

    channels: tuple[int, ...] = (128, 256, 512, 1024)
    num_res_blocks: tuple[int, ...] = (2, 4, 8, 8)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    attention: tuple[str, ...] = ("none", "none", "none", "self")
    heads: int = 8
    stem_channels: int | None = None
    embedding_features: int | None = None
    text_features: int | None = None
    # Paper silent: what CombineEmbs does. Scale and shift in every block, as the
    # listing's use_scale_shift_norm and the base model have it.
    combine: str = "resblock"
    # Paper silent: figure A.29 says "Previous UBlock + Skip". Concatenation keeps both.
    merge: str = "concat"
    # Paper silent: which skip connections are scaled. The two works cited for it, Song
    # et al. 2021 and SR3, scale residual sums; others take it for the long ones.
    residual_scaling: bool = True
    skip_scaling: bool = True
    out_channels: int = 3
    space_to_depth: int = 1
    positions: str = "none"
    feed_forward: int | tuple[int, ...] = 0
    text_map: int = 0
    input_skip: bool = False
    dropout: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        levels = len(self.channels)
        for name in ("num_res_blocks", "strides", "attention", "feed_forward"):
            value = getattr(self, name)
            if name == "feed_forward" and isinstance(value, int):
                continue
            if len(value) != levels:
                raise ValueError(
                    f"EfficientUNet: {name} must have one entry for each of the "
                    f"{levels} levels, got {value}."
                )
        for name, known in (
            ("combine", COMBINES),
            ("merge", MERGES),
            ("positions", attention_lib.POSITIONS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"EfficientUNet: {name} must be one of {known}, got "
                    f"{getattr(self, name)!r}."
                )
        for kind, width in zip(self.attention, self.channels, strict=True):
            if kind not in attention_lib.KINDS:
                raise ValueError(
                    f"EfficientUNet: attention must be of {attention_lib.KINDS}, got "
                    f"{kind!r}."
                )
            if kind != "none" and 2 * width % self.heads:
                raise ValueError(
                    f"EfficientUNet: 2 * {width} channels must be a multiple of "
                    f"{self.heads} heads."
                )
        stem = self.stem_channels or self.channels[0]
        if self.strides[0] == 1 and stem != self.channels[0]:
            raise ValueError(
                "EfficientUNet: with a first stride of 1, stem_channels must equal "
                f"the first level's {self.channels[0]}, got {stem}."
            )

        read = any(map(self._feeds, range(levels)))
        attention_lib.check_text_map("EfficientUNet", self.text_map, read)

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        multiple = self.space_to_depth
        for stride in self.strides:
            multiple *= stride
        return multiple

    def _options(self, level: int) -> dict:
        return {
            "channels": self.channels[level],
            "num_res_blocks": self.num_res_blocks[level],
            "attention": self.attention[level],
            "stride": self.strides[level],
            "heads": self.heads,
            "combine": self.combine,
            "residual_scaling": self.residual_scaling,
            "positions": self.positions,
            "feed_forward": self._feed_forward(level),
            "dropout": self.dropout,
            "remat": self.remat,
            "dtype": self.dtype,
        }

    def _feed_forward(self, level: int) -> int:
        wide = self.feed_forward
        return wide if isinstance(wide, int) else wide[level]

    def _text_maps(self, text, mask, x):
        """The map of each level: made at the first that reads it, pooled after."""
        height, width = x.shape[1:3]
        text_map, maps = None, []
        for level, stride in enumerate(self.strides):
            height, width = height // stride, width // stride
            if text_map is not None:
                text_map = layers.average_pool(text_map, stride)
            elif self.text_map and text is not None and self._feeds(level):
                text_map = attention_lib.TextMap(
                    self.text_map, dtype=self.dtype, name="text_map"
                )(text, mask, height, width)
            maps.append(text_map)
        return maps

    def _feeds(self, level: int) -> bool:
        return self.attention[level] != "none" and self._feed_forward(level) > 0

    def _merge(self, x, skip, merge: str):
        scale = 0.5**0.5 if self.skip_scaling else 1.0
        if merge == "add":
            return (x + skip) * scale
        return jnp.concatenate([x, skip * scale], axis=-1)

    @nn.compact
    def __call__(self, z: Array, noise_input: Array, cond: Conditioning) -> Array:
        """Noisy image [B, H, W, C] and noise input [B] in [0, 1] -> [B, H, W, out].

        Raises:
          ValueError: if height or width is no multiple of `size_multiple`.
        """
        blocks.check_size("EfficientUNet", z, self.size_multiple)
        stem_channels = self.stem_channels or self.channels[0]
        text, mask = None, cond.mask
        if cond.tokens is not None:
            text = embeddings.TextProjection(
                self.text_features, self.dtype, name="text"
            )(cond.tokens)
        emb = embeddings.ConditionEmbedding(
            stem_channels,
            self.embedding_features or 4 * stem_channels,
            self.dtype,
            name="embedding",
        )(noise_input, cond, text)
        x = blocks.Stem(stem_channels, self.space_to_depth, self.dtype, name="stem")(
            z, cond.planes
        )

        maps = self._text_maps(text, mask, x)
        down, up = (
            blocks.rematerialised_level(cls, self.remat)
            for cls in (blocks.DBlock, blocks.UBlock)
        )
        skips = [x]
        for i in range(len(self.channels)):
            block = down(**self._options(i), name=f"down_{i}")
            x = block(x, emb, text, mask, maps[i])
            skips.append(x)
        # The deepest state is where the way up begins, not a skip connection.
        skips.pop()
        for i in reversed(range(len(self.channels))):
            if i < len(self.channels) - 1:
                x = self._merge(x, skips.pop(), self.merge)
            out = self.channels[i - 1] if i else stem_channels
            block = up(**self._options(i), out_channels=out, name=f"up_{i}")
            x = block(x, emb, text, mask, maps[i])
        # Paper silent: whether the stem has a skip connection. Without one the head
        # would see no pixel of the input at full resolution. It is added whatever
        # `merge` says: at 1024 x 1024 a concatenation is the largest array of all.
        x = self._merge(x, skips.pop(), "add")
        x = blocks.Head(
            self.out_channels, self.space_to_depth, self.dtype, name="head"
        )(x)
        if self.input_skip:
            x = blocks.InputSkip(self.dtype, name="input_skip")(x, cond.planes, emb)
        return x
