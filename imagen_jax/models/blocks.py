"""The blocks of both U-Nets."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.models import attention as attention_lib
from imagen_jax.models import embeddings, layers
from imagen_jax.types import Array


def rematerialised(module: type[nn.Module], remat: str) -> type[nn.Module]:
    """`module`, a block, its activations computed again in the backward pass or not.

    Args:
      module: a block of a level.
      remat: one of `layers.REMAT`; all but "none" keep a block's input only.
    """
    return nn.remat(module) if layers.check_remat(remat) != "none" else module


def rematerialised_level(module: type[nn.Module], remat: str) -> type[nn.Module]:
    """`module`, a level of blocks; "full" keeps its input only, and its skips."""
    return nn.remat(module) if layers.check_remat(remat) == "full" else module


def check_size(who: str, z: Array, multiple: int) -> None:
    """Raise ValueError unless height and width are multiples of `multiple`."""
    height, width = z.shape[1:3]
    if height % multiple or width % multiple:
        raise ValueError(
            f"{who}: height and width must be multiples of {multiple}, got "
            f"{height} x {width}. Pad the image or use fewer levels."
        )


class Stem(nn.Module):
    """Noisy image and planes to the first feature map.

    Attributes:
      channels: of the result.
      space_to_depth: side of the squares folded into channels first.
      dtype: of activations.
    """

    channels: int
    space_to_depth: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z, planes=None):
        """[B, H, W, C] and planes [B, H, W, P] or None -> [B, H/f, W/f, channels]."""
        if planes is not None:
            # Paper silent: how the low-resolution image enters. Palette and GLIDE
            # concatenate it.
            z = jnp.concatenate([z, planes.astype(z.dtype)], axis=-1)
        x = z.astype(self.dtype)
        if self.space_to_depth > 1:
            # Differs: the paper works at full resolution. Folding makes the first
            # level f^2 times cheaper, which small models on a CPU need.
            x = layers.space_to_depth(x, self.space_to_depth)
        x = layers.Conv(self.channels, name="conv", dtype=self.dtype)(x)
        return layers.constrain_image(x)


class Head(nn.Module):
    """Norm, activation and a convolution that starts at zero; float32.

    Attributes:
      out_channels: of the result.
      space_to_depth: side of the squares to unfold.
      dtype: of activations.
      activation: one of `layers.ACTIVATIONS`.
      num_groups: of the norm; None: `layers.groups` of its channels.
      epsilon: of the norm.
    """

    out_channels: int
    space_to_depth: int = 1
    dtype: DTypeLike = jnp.float32
    activation: str = "silu"
    num_groups: int | None = None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        """[B, H, W, C] -> [B, f H, f W, out_channels]."""
        groups = self.num_groups or layers.groups(x.shape[-1])
        norm = layers.GroupNorm(
            groups, name="norm", dtype=self.dtype, epsilon=self.epsilon
        )
        x = layers.ACTIVATIONS[self.activation](norm(x))
        x = layers.Conv(
            self.out_channels * self.space_to_depth**2,
            name="conv",
            dtype=self.dtype,
            kernel_init=layers.zeros_init,
        )(x)
        x = x.astype(jnp.float32)
        if self.space_to_depth > 1:
            x = layers.depth_to_space(x, self.space_to_depth)
        return x


class InputSkip(nn.Module):
    """What is near the result already, scaled by the embedding, added to it.

    SR3 and Imagen ask their networks for all of the picture; most of it is in the
    low-resolution input, which the head's norm hides. Residual super-resolution: Kim et
    al. 2016 (VDSR); in diffusion: Li et al. 2022 (SRDiff).

    Attributes:
      dtype: of activations.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, planes, emb):
        """x + (1 + scale(emb)) * planes; images [B, H, W, C], embedding [B, E].

        Raises:
          ValueError: for planes of another shape than x's, or none.
        """
        if planes is None or planes.shape != x.shape:
            got = "none" if planes is None else planes.shape
            raise ValueError(
                f"InputSkip: planes must be a picture of shape {x.shape}, got {got}."
            )
        scale = layers.Dense(
            x.shape[-1],
            ("embed", None),
            name="scale",
            dtype=self.dtype,
            kernel_init=layers.zeros_init,
        )(nn.silu(emb))
        scale = scale.astype(jnp.float32)[:, None, None, :]
        return x + (1.0 + scale) * planes.astype(jnp.float32)


class ScaleShift(nn.Module):
    """x * (1 + scale) + shift, both made from the embedding (FiLM).

    Attributes:
      dtype: of activations.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, emb):
        """[B, H, W, C] and [B, E] -> [B, H, W, C]."""
        h = layers.Dense(
            2 * x.shape[-1], ("embed", "mlp"), name="dense", dtype=self.dtype
        )(emb)
        scale, shift = jnp.split(h[:, None, None, :], 2, axis=-1)
        return x * (1 + scale) + shift


class ResNetBlock(nn.Module):
    """Norm, activation, conv, norm, activation, conv beside a shortcut.

    Dhariwal & Nichol 2021 for the base ("biggan" up and down sampling between the
    first activation and the first convolution), figure A.27 of Saharia et al. 2022 for
    the Efficient U-Net. The second convolution starts at zero. Dropout acts where the
    caller gives a "dropout" random stream.

    Attributes:
      channels: of the result.
      resample: "none", "up" or "down" (by 2).
      always_project: a 1x1 convolution on the shortcut even where the number of
        channels stays.
      residual_scaling: divide the sum by sqrt(2), or multiply it by a number.
      dropout: rate before the second convolution.
      activation: one of `layers.ACTIVATIONS`.
      num_groups: of both norms; None: `layers.groups` of their channels.
      epsilon: of both norms.
      dtype: of activations.
    """

    channels: int
    resample: str = "none"
    always_project: bool = False
    residual_scaling: bool | float = False
    dropout: float = 0.0
    activation: str = "silu"
    num_groups: int | None = None
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, emb=None):
        """[B, H, W, Cin] and embedding [B, E] or None -> [B, H', W', channels]."""
        act = layers.ACTIVATIONS[self.activation]

        def norm(h, name):
            groups = self.num_groups or layers.groups(h.shape[-1])
            return layers.GroupNorm(
                groups, name=name, dtype=self.dtype, epsilon=self.epsilon
            )(h)

        h = act(norm(x, "norm_0"))
        if self.resample == "down":
            h, x = layers.average_pool(h), layers.average_pool(x)
        elif self.resample == "up":
            h, x = layers.nearest_up(h), layers.nearest_up(x)
        h = layers.Conv(self.channels, name="conv_0", dtype=self.dtype)(h)
        h = norm(h, "norm_1")
        if emb is not None:
            h = ScaleShift(self.dtype, name="embedding")(h, emb)
        h = act(h)
        if self.dropout:
            silent = not self.has_rng("dropout")
            h = nn.Dropout(self.dropout, deterministic=silent)(h)
        h = layers.Conv(
            self.channels,
            name="conv_1",
            dtype=self.dtype,
            kernel_init=layers.zeros_init,
        )(h)
        if self.always_project or x.shape[-1] != self.channels:
            x = layers.Conv(self.channels, 1, name="shortcut", dtype=self.dtype)(x)
        return layers.constrain_image(layers.residual(x, h, self.residual_scaling))


class FeedForward(nn.Module):
    """A gated two-layer network at every position, added to its input.

    The paper's blocks have none; transformers follow attention with one (the gate:
    Shazeer 2020, SwiGLU; in a U-Net's deepest levels: Hoogeboom et al. 2023; scaled and
    shifted by the embedding: Peebles & Xie 2023). The last layer starts at zero. A map
    of what the text says about each position is joined to what both layers read.

    Attributes:
      hidden: width between the two layers.
      positions: "none" or "coordinates", projected and added to what is gated.
      residual_scaling: divide the sum by sqrt(2).
      dtype: of activations.
    """

    hidden: int
    positions: str = "none"
    residual_scaling: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, emb=None, text_map=None):
        """[B, H, W, C], embedding [B, E], map [B, H, W, M] or None -> [B, H, W, C]."""
        channels = x.shape[-1]
        groups = layers.groups(channels)
        h = layers.GroupNorm(groups, name="norm", dtype=self.dtype)(x)
        if emb is not None:
            h = ScaleShift(self.dtype, name="embedding")(h, emb)
        if text_map is not None:
            h = jnp.concatenate([h, text_map], axis=-1)

        def dense(features, axes, name, **options):
            return layers.Dense(features, axes, name=name, dtype=self.dtype, **options)

        gate = dense(self.hidden, ("embed", "mlp"), "gate")(h)
        value = dense(self.hidden, ("embed", "mlp"), "value")(h)
        if self.positions == "coordinates":
            places = embeddings.coordinates(x.shape[1], x.shape[2])
            places = places.reshape(1, x.shape[1], x.shape[2], -1)
            value += dense(self.hidden, (None, "mlp"), "positions", use_bias=False)(
                places
            )
        h = nn.silu(gate) * value
        h = dense(channels, ("mlp", "embed"), "out", kernel_init=layers.zeros_init)(h)
        return layers.constrain_image(layers.residual(x, h, self.residual_scaling))


class Blocks(nn.Module):
    """What a DBlock and a UBlock share: CombineEmbs, ResNet blocks, attention.

    Figures A.28 and A.29 of Saharia et al. 2022.

    Attributes:
      channels: of every ResNet block.
      num_res_blocks: how many.
      attention: "none", "self" or "text" after the ResNet blocks.
      heads: of the attention; its width is 2 * channels.
      combine: "resblock" scales and shifts inside every ResNet block, "block" once
        before them.
      residual_scaling: divide residual sums by sqrt(2).
      positions: in attention, "none" or "coordinates".
      feed_forward: hidden width, in units of `channels`, of a gated network after the
        attention; 0 is none.
      dropout: rate inside ResNet blocks.
      remat: one of `layers.REMAT`; "full" acts as "block" in here.
      dtype: of activations.
    """

    channels: int
    num_res_blocks: int
    attention: str = "none"
    heads: int = 8
    combine: str = "resblock"
    residual_scaling: bool = True
    positions: str = "none"
    feed_forward: int = 0
    dropout: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    def blocks(self, x, emb, text, mask, text_map=None):
        """[B, H, W, Cin] -> [B, H, W, channels]; call inside a compact method."""
        if self.combine == "block":
            x = ScaleShift(self.dtype, name="embedding")(x, emb)
        for i in range(self.num_res_blocks):
            block = rematerialised(ResNetBlock, self.remat)(
                self.channels,
                always_project=True,
                residual_scaling=self.residual_scaling,
                dropout=self.dropout,
                dtype=self.dtype,
                name=f"res_{i}",
            )
            x = block(x, emb if self.combine == "resblock" else None)
        if self.attention != "none":
            x = rematerialised(attention_lib.Attention, self.remat)(
                self.attention,
                self.heads,
                2 * self.channels,
                positions=self.positions,
                residual_scaling=self.residual_scaling,
                dtype=self.dtype,
                name="attention",
            )(x, text, mask)
        if self.attention != "none" and self.feed_forward:
            x = rematerialised(FeedForward, self.remat)(
                self.feed_forward * self.channels,
                positions=self.positions,
                residual_scaling=self.residual_scaling,
                dtype=self.dtype,
                name="feed_forward",
            )(x, emb, text_map)
        return x


class DBlock(Blocks):
    """A strided convolution, then the blocks: down before the work.

    Attributes:
      stride: 1 has no convolution of its own.
    """

    stride: int = 2

    @nn.compact
    def __call__(self, x, emb, text=None, mask=None, text_map=None):
        """[B, H, W, Cin] -> [B, H/stride, W/stride, channels]."""
        if self.stride > 1:
            x = layers.Conv(
                self.channels, name="down", stride=self.stride, dtype=self.dtype
            )(x)
            x = layers.constrain_image(x)
        return self.blocks(x, emb, text, mask, text_map)


class UBlock(Blocks):
    """The blocks, then an up-sampling convolution: up after the work.

    Attributes:
      stride: 1 has no convolution of its own.
      out_channels: of the up-sampling convolution.
    """

    stride: int = 2
    out_channels: int = 128

    @nn.compact
    def __call__(self, x, emb, text=None, mask=None, text_map=None):
        """[B, H, W, Cin] -> [B, H*stride, W*stride, out_channels]."""
        x = self.blocks(x, emb, text, mask, text_map)
        if self.stride > 1:
            # Paper silent: how a 3x3 convolution with a stride goes up. At the low
            # resolution, its channels then laid out in space: as many operations as
            # nearest-neighbour and convolution, no costly broadcast.
            x = layers.Conv(
                self.out_channels * self.stride**2, name="up", dtype=self.dtype
            )(x)
            x = layers.constrain_image(layers.depth_to_space(x, self.stride))
        return x
