"""DeepFloyd IF's U-Net (github.com/deep-floyd/IF), stages I and II.

The levels of `unet.UNet` with other blocks: GELU, a GroupNorm for the text in each
attention, text pooled by attention whose query is the mean token, noise levels counted
in steps. Described by diffusers' UNet2DConditionModel with ResNet and SimpleCrossAttn
blocks; `published.deepfloyd` reads its config. Text is not masked: IF was trained with
all 77 places of its encoder's output.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.conditioning import Conditioning
from imagen_jax.models import attention, blocks, embeddings, layers, unet
from imagen_jax.types import Array, Float, typechecked


@typechecked
def timestep(t: Float[Array, " B"], steps: int) -> Float[Array, " B"]:
    """The place in a table of `steps` noise levels of t in [0, 1], as a number.

    floor(t steps), as IF counts its aug_level; what rounding took from t = i / steps is
    given back.
    """
    return jnp.clip(jnp.floor(t * steps + 0.01), 0, steps - 1)


class TextPooling(nn.Module):
    """One vector of the text: attention whose query is the mean token.

    LayerNorm; the mean of the tokens with a learned vector added reads itself and all
    tokens; a dense layer and LayerNorm.

    Attributes:
      width: size of the result.
      heads: number of heads; divides the tokens' width.
    """

    width: int
    heads: int

    @nn.compact
    def __call__(self, tokens):
        """[B, L, D] -> [B, width], float32."""
        batch, _, features = tokens.shape
        h = layers.LayerNorm(name="norm")(tokens.astype(jnp.float32))
        position = self.param(
            "position",
            layers.partitioned(nn.initializers.normal(features**-0.5), None, "norm"),
            (1, features),
        )
        mean = h.mean(1, keepdims=True) + jnp.asarray(position)[None]

        def project(a, name):
            a = layers.Dense(features, ("embed", "joined_kv"), name=name)(a)
            a = a.reshape(*a.shape[:2], self.heads, features // self.heads)
            return layers.constrain(a, "batch", None, "act_heads", None)

        every = jnp.concatenate([mean, h], axis=1)
        h = attention.attend(
            project(mean, "query"), project(every, "key"), project(every, "value")
        )
        h = layers.Dense(self.width, ("joined_kv", "embed"), name="dense")(
            h.reshape(batch, features)
        )
        return layers.LayerNorm(name="dense_norm")(h)


class ConditionEmbedding(nn.Module):
    """The sum of the step, the planes' step and the pooled text, activated for blocks.

    Attributes:
      features: size of the sinusoidal features.
      width: size of the result.
      heads: of the text pooling.
      activation: inside the embeddings of steps.
      last_activations: what the sum passes through, in order.
      steps: noise levels in the table.
    """

    features: int
    width: int
    heads: int
    activation: str
    last_activations: tuple[str, ...]
    steps: int

    @nn.compact
    def __call__(self, noise_input, cond: Conditioning):
        """Noise input [B] -> [B, width], float32."""

        def step(t, name):
            return embeddings.ScalarEmbedding(
                self.features, self.width, 1.0, self.activation, name=name
            )(timestep(t, self.steps))

        h = step(noise_input, "noise")
        if cond.aug_level is not None:
            h += step(cond.aug_level, "aug_level")
        if cond.tokens is not None:
            h += TextPooling(self.width, self.heads, name="text")(cond.tokens)
        for name in self.last_activations:
            h = layers.ACTIVATIONS[name](h)
        return h


class Level(unet.Level):
    """A level whose blocks have IF's norms and activation.

    Attributes:
      num_groups: of the norms.
      epsilon: of the ResNet blocks' norms.
      activation: of the ResNet blocks.
      residual_factor: of the sum with the shortcut in ResNet blocks.
      text_only: attention reads the text and not the image.
    """

    num_groups: int = 32
    epsilon: float = 1e-5
    activation: str = "gelu"
    residual_factor: float = 1.0
    text_only: bool = False

    def _res(self, name: str, resample: str = "none"):
        return blocks.rematerialised(blocks.ResNetBlock, self.remat)(
            self.channels,
            resample=resample,
            residual_scaling=self.residual_factor,
            dropout=self.dropout,
            activation=self.activation,
            num_groups=self.num_groups,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name=name,
        )

    def _attention(self, name: str):
        return blocks.rematerialised(attention.Attention, self.remat)(
            "text" if self.text_only else "self",
            self.channels // self.head_dim,
            self.channels,
            num_groups=self.num_groups,
            text_norm="group",
            joined=False,
            dtype=self.dtype,
            name=name,
        )


class DeepFloydUNet(nn.Module):
    """IF's U-Net; any multiple of `size_multiple` pixels.

    Attributes:
      channels: width of each level; level l is 2^l times coarser than the stem.
      num_res_blocks: blocks of each level; the way up has one more. One number, or
        one for each level.
      attention_levels: levels with attention after every block.
      head_dim: channels of a head, of each level on the way down and in the middle.
      head_dim_up: the same on the way up; none: as on the way down.
      text_only_levels: levels whose attention reads the text and not the image.
      text_only_middle: the same of the middle.
      text_features: width to which text tokens are projected once; a multiple of 32.
      pooling_heads: of the text pooling.
      embedding_width: of the vector that all blocks get; None: 4 channels[0].
      embedding_activation: what that vector passes through once; None is nothing.
      activate_embedding: it passes through `activation` too, in each block.
      out_channels: of the result: the picture's, or twice as many with a learned
        variance.
      activation: "gelu" or "silu".
      num_groups: of the image's norms.
      epsilon: of the image's norms but attention's.
      residual_factor: of the sum with the shortcut in ResNet blocks.
      middle_residual_factor: the same of the middle.
      steps: noise levels in the table that its steps count.
      dropout: rate inside blocks; acts where a "dropout" stream is given.
      remat: as in `unet.UNet`.
      dtype: of activations; parameters, norm statistics, softmax and the result are
        float32.

    Raises:
      ValueError: for numbers of levels that differ or widths that do not divide.
    """

    channels: tuple[int, ...]
    num_res_blocks: int | tuple[int, ...] = 3
    attention_levels: tuple[int, ...] = (1, 2, 3)
    head_dim: int | tuple[int, ...] = 64
    head_dim_up: int | tuple[int, ...] = ()
    text_only_levels: tuple[int, ...] = ()
    text_only_middle: bool = False
    text_features: int = 2816
    pooling_heads: int = 64
    embedding_width: int | None = None
    embedding_activation: str | None = None
    activate_embedding: bool = True
    out_channels: int = 6
    activation: str = "gelu"
    num_groups: int = 32
    epsilon: float = 1e-5
    residual_factor: float = 1.0
    middle_residual_factor: float = 1.0
    steps: int = 1000
    dropout: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        levels = len(self.channels)
        for name in ("num_res_blocks", "head_dim", "head_dim_up"):
            many = getattr(self, name)
            if not isinstance(many, int) and len(many) not in (
                {0, levels} if name == "head_dim_up" else {levels}
            ):
                raise ValueError(
                    f"DeepFloydUNet: {name} must be one number or {levels}, got {many}."
                )
        for name in ("activation", "embedding_activation"):
            value = getattr(self, name)
            if value is not None and value not in layers.ACTIVATIONS:
                raise ValueError(
                    f"DeepFloydUNet: {name} must be one of "
                    f"{sorted(layers.ACTIVATIONS)}, got {value!r}."
                )
        if self.text_features % attention.TEXT_GROUPS:
            raise ValueError(
                "DeepFloydUNet: text_features must be a multiple of "
                f"{attention.TEXT_GROUPS}, got {self.text_features}."
            )
        for level in range(levels):
            width = self.channels[level]
            heads = {self.head_dim_at(level), self.head_dim_at(level, up=True)}
            attends = level in self.attention_levels or level == levels - 1
            for part in {self.num_groups, *(heads if attends else ())}:
                if width % part:
                    raise ValueError(
                        f"DeepFloydUNet: the width {width} of level {level} must be a "
                        f"multiple of its groups and head_dim, got {part}."
                    )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (len(self.channels) - 1)

    def _res_blocks(self, level: int) -> int:
        many = self.num_res_blocks
        return many if isinstance(many, int) else many[level]

    def head_dim_at(self, level: int, *, up: bool = False) -> int:
        """Channels of a head of the attention of a level."""
        many = self.head_dim_up if up and self.head_dim_up else self.head_dim
        return many if isinstance(many, int) else many[level]

    def _level(self, name: str, level: int, num_res_blocks: int, **fields):
        return blocks.rematerialised_level(Level, self.remat)(
            self.channels[level],
            num_res_blocks,
            **{
                "attend": level in self.attention_levels,
                "text_only": level in self.text_only_levels,
                "head_dim": self.head_dim_at(level),
                "residual_factor": self.residual_factor,
                **fields,
            },
            num_groups=self.num_groups,
            epsilon=self.epsilon,
            activation=self.activation,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
            name=name,
        )

    def _middle(self, x, told):
        last = len(self.channels) - 1
        fields = {
            "residual_factor": self.middle_residual_factor,
            "text_only": self.text_only_middle,
        }
        for i, attend in enumerate((True, False)):
            level = self._level(f"middle_{i}", last, 1, attend=attend, **fields)
            x, _ = level(x, *told)
        return x

    def _embedding(self):
        last = (self.embedding_activation, self.activation)
        wanted = (self.embedding_activation is not None, self.activate_embedding)
        return ConditionEmbedding(
            self.channels[0],
            self.embedding_width or 4 * self.channels[0],
            self.pooling_heads,
            self.activation,
            tuple(name for name, on in zip(last, wanted, strict=True) if on and name),
            self.steps,
            name="embedding",
        )

    @nn.compact
    def __call__(self, z: Array, noise_input: Array, cond: Conditioning) -> Array:
        """Noisy image [B, H, W, C] and noise input [B] in [0, 1] -> [B, H, W, out].

        Both the noise input and `cond.aug_level` are i / steps at the i-th level of the
        table.

        Raises:
          ValueError: if height or width is no multiple of `size_multiple`.
        """
        blocks.check_size("DeepFloydUNet", z, self.size_multiple)
        text = None
        if cond.tokens is not None:
            text = embeddings.TextProjection(
                self.text_features, self.dtype, name="text"
            )(cond.tokens)
        told = (self._embedding()(noise_input, cond), text)
        x = blocks.Stem(self.channels[0], dtype=self.dtype, name="stem")(z, cond.planes)
        last = len(self.channels) - 1
        skips = [x]
        for i in range(last + 1):
            end = "down" if i < last else "none"
            level = self._level(f"down_{i}", i, self._res_blocks(i), resample=end)
            x, states = level(x, *told)
            skips.extend(states)
        x = self._middle(x, told)
        for i in reversed(range(last + 1)):
            many = self._res_blocks(i) + 1
            here, skips = tuple(skips[-many:]), skips[:-many]
            head_dim, end = self.head_dim_at(i, up=True), "up" if i else "none"
            level = self._level(f"up_{i}", i, many, resample=end, head_dim=head_dim)
            x, _ = level(x, *told, None, None, here)
        return blocks.Head(
            self.out_channels,
            activation=self.activation,
            num_groups=self.num_groups,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name="head",
        )(x)
