"""The base model's U-Net (Saharia et al. 2022, section 2.5 and appendix F.1).

Dhariwal & Nichol's U-Net, with text in every attention layer and in the time
embedding.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.conditioning import Conditioning
from imagen_jax.models import attention, blocks, embeddings, layers
from imagen_jax.types import Array

# Fields of the paper's sizes. Paper silent: the width at which the tokens enter. With
# 4096 as it comes from T5-XXL the 2B model counts 2.4e9; projected to half its deepest
# width or more, as here, 2.1-2.3e9.
BASE_2B = {
    "channels": 512,
    "channel_mult": (1, 2, 3, 4),
    "num_res_blocks": 3,
    "attention_levels": (1, 2, 3),
    "head_dim": 64,
    "text_features": 2048,
}
# Appendix F gives no listing of the smaller models of figure A.8; the base's, narrower.
BASE_500M = {**BASE_2B, "channels": 256, "text_features": 1024}
BASE_300M = {**BASE_2B, "channels": 192, "text_features": 768}


class Level(nn.Module):
    """One resolution of the U-Net, on the way down or on the way up.

    Attributes:
      channels: of every block.
      num_res_blocks: how many blocks.
      attend: attention after every block.
      resample: what stands at the end: "none", "down" or "up".
      head_dim: channels of an attention head.
      positions: in attention, "none" or "coordinates".
      feed_forward: hidden width, in units of `channels`, of a gated network at each
        position after every attention; 0 is none.
      residual_scaling: divide residual sums by sqrt(2).
      skip_scaling: divide skip connections by sqrt(2).
      dropout: rate inside blocks.
      remat: one of `layers.REMAT`; "full" acts as "block" in here.
      dtype: of activations.
    """

    channels: int
    num_res_blocks: int
    attend: bool
    resample: str = "none"
    head_dim: int = 64
    positions: str = "none"
    feed_forward: int = 0
    residual_scaling: bool = False
    skip_scaling: bool = False
    dropout: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, emb, text=None, mask=None, text_map=None, skips: tuple = ()):
        """[B, H, W, C] -> the result and the states after every step.

        `text_map` [B, H, W, M] reaches the feed-forward networks. `skips` are joined to
        the inputs of the blocks, the last one first; without skips nothing is joined.
        """
        states = []
        waiting = list(skips)
        for i in range(self.num_res_blocks):
            if waiting:
                skip = waiting.pop() * (0.5**0.5 if self.skip_scaling else 1.0)
                x = jnp.concatenate([x, skip], axis=-1)
            x = self._res(f"res_{i}")(x, emb)
            if self.attend:
                x = self._attention(f"attention_{i}")(x, text, mask)
                if self.feed_forward:
                    x = self._feed_forward(f"feed_forward_{i}")(x, emb, text_map)
            states.append(x)
        if self.resample != "none":
            x = self._res(f"{self.resample}sample", resample=self.resample)(x, emb)
            states.append(x)
        return x, tuple(states)

    def _res(self, name: str, resample: str = "none"):
        return blocks.rematerialised(blocks.ResNetBlock, self.remat)(
            self.channels,
            resample=resample,
            residual_scaling=self.residual_scaling,
            dropout=self.dropout,
            dtype=self.dtype,
            name=name,
        )

    def _attention(self, name: str):
        return blocks.rematerialised(attention.Attention, self.remat)(
            "self",
            self.channels // self.head_dim,
            self.channels,
            positions=self.positions,
            residual_scaling=self.residual_scaling,
            dtype=self.dtype,
            name=name,
        )

    def _feed_forward(self, name: str):
        return blocks.rematerialised(blocks.FeedForward, self.remat)(
            self.feed_forward * self.channels,
            positions=self.positions,
            residual_scaling=self.residual_scaling,
            dtype=self.dtype,
            name=name,
        )


class UNet(nn.Module):
    """A U-Net whose attention reads text; any multiple of `size_multiple` pixels.

    Attributes:
      channels: width of the first level.
      channel_mult: width of each level in units of `channels`.
      num_res_blocks: blocks of each level; the way up has one more. One number, or
        one for each level.
      attention_levels: levels with attention; level l is 2^l times coarser than the
        stem. The paper's 32, 16 and 8 of 64 are levels 1, 2 and 3.
      head_dim: channels of an attention head.
      text_features: width to which text tokens are projected once; None: as they come.
      out_channels: of the result.
      space_to_depth: fold squares of this side into channels at the stem and unfold
        them at the head; 1 is the paper.
      positions: in attention: "none" (the paper) or "coordinates".
      feed_forward: of each level, hidden width, in units of its width, of a gated
        network at each position after every attention; 0 is none (the paper). One
        number, or one for each level.
      text_map: width of a map of what the text says about each position
        (`attention.TextMap`), made at the first level and read by every feed-forward
        network; 0 is none (the paper).
      residual_scaling: divide residual sums by sqrt(2).
      skip_scaling: divide skip connections by sqrt(2).
      dropout: rate inside blocks; acts where a "dropout" stream is given.
      remat: "none"; "block" computes each block again in the backward pass, "full"
        each level and in it each block.
      dtype: of activations; parameters, norm statistics, softmax and the result are
        float32.
    """

    channels: int = 512
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_res_blocks: int | tuple[int, ...] = 3
    attention_levels: tuple[int, ...] = (1, 2, 3)
    head_dim: int = 64
    text_features: int | None = None
    out_channels: int = 3
    space_to_depth: int = 1
    positions: str = "none"
    feed_forward: int | tuple[int, ...] = 0
    text_map: int = 0
    residual_scaling: bool = False
    skip_scaling: bool = False
    dropout: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        levels = len(self.channel_mult)
        for name in ("num_res_blocks", "feed_forward"):
            many = getattr(self, name)
            if not isinstance(many, int) and len(many) != levels:
                raise ValueError(
                    f"UNet: {name} must be one number or {levels}, got {many}."
                )
        deepest = {levels - 1} if self.attention_levels else set()
        for level in sorted({*self.attention_levels, *deepest}):
            if not 0 <= level < levels:
                raise ValueError(
                    f"UNet: attention_levels must be below {levels}, got {level}."
                )
            width = self.channels * self.channel_mult[level]
            if width % self.head_dim:
                raise ValueError(
                    f"UNet: the width {width} of level {level} must be a multiple of "
                    f"head_dim {self.head_dim}."
                )
        read = any(
            self._feed_forward(level) for level in {*self.attention_levels, *deepest}
        )
        attention.check_text_map("UNet", self.text_map, read)
        if self.positions not in attention.POSITIONS:
            raise ValueError(
                f"UNet: positions must be one of {attention.POSITIONS}, got "
                f"{self.positions!r}."
            )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return self.space_to_depth * 2 ** (len(self.channel_mult) - 1)

    def _res_blocks(self, level: int) -> int:
        many = self.num_res_blocks
        return many if isinstance(many, int) else many[level]

    def _feed_forward(self, level: int) -> int:
        wide = self.feed_forward
        return wide if isinstance(wide, int) else wide[level]

    def _level(self, level: int, num_res_blocks: int, attend: bool, resample, name):
        return blocks.rematerialised_level(Level, self.remat)(
            self.channels * self.channel_mult[level],
            num_res_blocks,
            attend,
            resample,
            self.head_dim,
            self.positions,
            self._feed_forward(level),
            self.residual_scaling,
            self.skip_scaling,
            self.dropout,
            self.remat,
            self.dtype,
            name=name,
        )

    def _text_maps(self, text, mask, x):
        """The map of each level, coarser ones averaged; None each without text."""
        levels = len(self.channel_mult)
        if not self.text_map or text is None:
            return [None] * levels
        text_map = attention.TextMap(self.text_map, dtype=self.dtype, name="text_map")
        maps = [text_map(text, mask, *x.shape[1:3])]
        while len(maps) < levels:
            maps.append(layers.average_pool(maps[-1]))
        return maps

    @nn.compact
    def __call__(self, z: Array, noise_input: Array, cond: Conditioning) -> Array:
        """Noisy image [B, H, W, C] and noise input [B] in [0, 1] -> [B, H, W, out].

        Raises:
          ValueError: if height or width is no multiple of `size_multiple`.
        """
        blocks.check_size("UNet", z, self.size_multiple)
        text, mask = None, cond.mask
        if cond.tokens is not None:
            text = embeddings.TextProjection(
                self.text_features, self.dtype, name="text"
            )(cond.tokens)
        emb = embeddings.ConditionEmbedding(
            self.channels, 4 * self.channels, self.dtype, name="embedding"
        )(noise_input, cond, text)
        x = blocks.Stem(self.channels, self.space_to_depth, self.dtype, name="stem")(
            z, cond.planes
        )

        last = len(self.channel_mult) - 1
        maps = self._text_maps(text, mask, x)
        told = [(emb, text, mask, text_map) for text_map in maps]
        skips = [x]
        for i in range(last + 1):
            attend, end = i in self.attention_levels, "down" if i < last else "none"
            level = self._level(i, self._res_blocks(i), attend, end, f"down_{i}")
            x, states = level(x, *told[i])
            skips.extend(states)
        attend = bool(self.attention_levels)
        x, _ = self._level(last, 1, attend, "none", "middle_0")(x, *told[-1])
        x, _ = self._level(last, 1, False, "none", "middle_1")(x, *told[-1])
        for i in reversed(range(last + 1)):
            attend, end = i in self.attention_levels, "up" if i else "none"
            many = self._res_blocks(i) + 1
            here, skips = tuple(skips[-many:]), skips[:-many]
            level = self._level(i, many, attend, end, f"up_{i}")
            x, _ = level(x, *told[i], here)
        return blocks.Head(
            self.out_channels, self.space_to_depth, self.dtype, name="head"
        )(x)
