"""What a network is told besides its image, as vectors."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.conditioning import Conditioning
from imagen_jax.models import layers
from imagen_jax.types import Array, Float, typechecked


@typechecked
def sinusoidal(
    values: Float[Array, " B"], features: int, max_period: float = 10_000.0
) -> Float[Array, "B {features}"]:
    """Cosines and sines of `values` at geometric frequencies 1 .. 1 / max_period.

    Vaswani et al. 2017, section 3.5, in the order of Ho et al. 2020; float32.

    Raises:
      ValueError: if `features` is odd or below 4.
    """
    if features % 2 or features < 4:
        raise ValueError(f"sinusoidal: features must be even, >= 4, got {features}.")
    half = features // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half) / half)
    angles = values.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


@typechecked
def coordinates(height: int, width: int, octaves: int = 5) -> Float[Array, "S F"]:
    """Cosines and sines of the positions of a height x width grid, rows first.

    Position 0 is the middle; the sides are divided by half their geometric mean, so
    a square spans [-1, 1] at every size and a wide picture is not squeezed. The
    frequencies are pi/2 * 2^n, n < octaves: F = 4 * octaves. No table, any size.
    """
    half = math.sqrt(height * width) / 2
    y = (jnp.arange(height) + 0.5 - height / 2) / half
    x = (jnp.arange(width) + 0.5 - width / 2) / half
    grid = jnp.stack(jnp.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    frequencies = (math.pi / 2) * 2.0 ** jnp.arange(octaves)
    angles = (grid * frequencies[None, None, :]).reshape(height * width, -1)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class ScalarEmbedding(nn.Module):
    """A scalar in the units of t ([B], 0 clean, 1 noise) as a vector [B, width].

    Attributes:
      features: size of the sinusoidal features.
      width: size of the result.
      steps: the scalar is multiplied by this; 1 for one that counts steps itself.
      activation: one of `layers.ACTIVATIONS`.
    """

    features: int
    width: int
    # The frequencies were chosen for 1000 discrete steps (Ho et al. 2020).
    steps: float = 1000.0
    activation: str = "silu"

    @nn.compact
    def __call__(self, t):
        """[B] -> [B, width], float32."""
        act = layers.ACTIVATIONS[self.activation]
        h = sinusoidal(t.astype(jnp.float32) * self.steps, self.features)
        h = layers.Dense(self.width, ("embed", "mlp"), name="dense_0")(h)
        return layers.Dense(self.width, ("mlp", "embed"), name="dense_1")(act(h))


class TextPooling(nn.Module):
    """Attention pooling: one learned query a head reads the tokens.

    LayerNorm on the tokens (Saharia et al. 2022, section 2.5 and D.3.1). A learned
    query times a key projection is one vector a head, so the scores are one dense
    layer.

    Attributes:
      width: size of the result.
      head_dim: channels of a head.
      dtype: of the values; scores and softmax are float32.
    """

    width: int
    head_dim: int = 64
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens, mask=None):
        """Tokens [B, L, D] and mask [B, L] (True: real) -> [B, width], float32."""
        batch, length, features = tokens.shape
        heads = max(1, features // self.head_dim)
        h = layers.LayerNorm(name="norm", dtype=self.dtype)(tokens)
        scores = layers.Dense(heads, ("embed", "heads"), name="scores")(h)
        if mask is not None:
            scores = jnp.where(mask[:, :, None], scores, -1e9)
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=1)
        values = layers.Dense(
            heads * self.head_dim,
            ("embed", "joined_kv"),
            name="values",
            dtype=self.dtype,
        )(h).reshape(batch, length, heads, self.head_dim)
        pooled = jnp.einsum("bln,blnk->bnk", weights.astype(self.dtype), values)
        # Paper silent: what follows the pooling. A norm and a two-layer network, as
        # for the noise level.
        h = layers.LayerNorm(name="pooled_norm")(pooled.reshape(batch, -1))
        h = layers.Dense(self.width, ("embed", "mlp"), name="dense_0")(h)
        return layers.Dense(self.width, ("mlp", "embed"), name="dense_1")(nn.silu(h))


class ConditionEmbedding(nn.Module):
    """The sum of all that reaches a network as one vector, after a SiLU.

    The noise level always; the noise level of the planes, the pooled text and
    `Conditioning.vector` where given. Float32 throughout: it is small, and a
    bfloat16 sinusoid of 1000 t would blur neighbouring levels.

    Attributes:
      features: size of the sinusoidal features.
      width: size of the result.
      dtype: of the text pooling.
    """

    features: int
    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, noise_input, cond: Conditioning, text=None):
        """Noise input [B] and text tokens [B, L, D] or None -> [B, width]."""
        h = ScalarEmbedding(self.features, self.width, name="noise")(noise_input)
        if cond.aug_level is not None:
            # Paper silent: how the level enters. Its own embedding, summed.
            h += ScalarEmbedding(self.features, self.width, name="aug_level")(
                cond.aug_level
            )
        if text is not None:
            h += TextPooling(self.width, dtype=self.dtype, name="text")(text, cond.mask)
        if cond.vector is not None:
            v = layers.Dense(self.width, ("embed", "mlp"), name="vector_0")(cond.vector)
            h += layers.Dense(self.width, ("mlp", "embed"), name="vector_1")(nn.silu(v))
        return nn.silu(h)


class TextProjection(nn.Module):
    """The text encoder's tokens at the network's width.

    Attributes:
      width: size of the result; None leaves the tokens as they are.
      dtype: of the result.
    """

    width: int | None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens):
        """[B, L, D] -> [B, L, width]."""
        tokens = tokens.astype(self.dtype)
        if self.width is None:
            return tokens
        return layers.Dense(
            self.width, ("embed", "mlp"), name="dense", dtype=self.dtype
        )(tokens)
