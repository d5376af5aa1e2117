"""The encoder of T5 1.0, T5 v1.1 and ByT5, with the parameter names of t5x.

Raffel et al. 2020 (https://arxiv.org/abs/1910.10683), from version 1.1 on with the
gated GELU of Shazeer 2020; ByT5 (Xue et al. 2021) differs in sizes and vocabulary only.
Imagen keeps the XXL encoder frozen (Saharia et al. 2022, section 2.1). Parameters are
laid out as in https://github.com/google-research/t5x, t5x/examples/t5/network.py, so
that its checkpoints need no renaming: heads are joined in the kernels' second axis.

In float16 (for GPUs without bfloat16) the published weights overflow: their residual
stream and the feed-forward's output pass 65,504. There, what is added to the stream is
a float32 product, the stream is float32, and only products of what has just been normed
are in float16.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from imagen_jax.models import layers
from imagen_jax.types import Array

# A finite minus infinity: a row whose keys are all masked stays finite.
MASKED = -1e10

attention_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
relpos_init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")


class T5Encoder(nn.Module):
    """Token ids to contextual embeddings.

    Attributes:
      vocab_size: rows of the embedding table.
      d_model: width D of the embeddings.
      num_layers: blocks of attention and feed-forward.
      num_heads: attention heads N.
      head_dim: size K of one head; N * K need not be D.
      d_ff: hidden width of the feed-forward.
      relpos_buckets: buckets of relative distance, half of them for each direction.
      relpos_max_distance: from here on all distances share a bucket.
      epsilon: of the norms.
      dtype: of the activations; norms' statistics, softmax and result are float32.
      remat: one of `layers.REMAT`; a chain of blocks has no levels: "full" is "block".
      gated: the feed-forward of T5 v1.1, mT5 and ByT5; else T5 1.0's with ReLU.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    head_dim: int
    d_ff: int
    relpos_buckets: int = 32
    relpos_max_distance: int = 128
    epsilon: float = 1e-6
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    gated: bool = True

    @property
    def stream_dtype(self) -> DTypeLike:
        """Of the residual stream: float16 has too small a range for it."""
        return jnp.float32 if jnp.dtype(self.dtype) == jnp.float16 else self.dtype

    @nn.compact
    def __call__(self, ids: Array, mask: Array) -> Array:
        """Encode ids [B, L] int32 with mask [B, L] (True at tokens) to [B, L, D].

        Masked keys get no attention; values at masked places mean nothing.
        """
        embed = layers.Embed(
            self.vocab_size, self.d_model, dtype=self.dtype, name="token_embedder"
        )
        return Stack(self, name="encoder")(embed(ids), mask)


class Stack(nn.Module):
    """The blocks and the last norm: all of the encoder but its embedding table."""

    config: T5Encoder

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        """Transform embedded tokens [B, L, D]; the result is float32."""
        c = self.config
        bias = RelativePositionBias(
            c.num_heads, c.relpos_buckets, c.relpos_max_distance, name="relpos_bias"
        )(x.shape[1])
        # Apart: their sum, [B, N, L, L], would lie in memory through all blocks.
        masked = jnp.where(mask, 0.0, MASKED)[:, None, None, :]
        again = layers.check_remat(c.remat) != "none"
        block = nn.remat(Block) if again else Block
        x = x.astype(c.stream_dtype)
        x = layers.constrain(x, "batch", "length", "act_embed")
        for i in range(c.num_layers):
            x = block(c, name=f"layers_{i}")(x, bias, masked)
        return layers.RMSNorm(epsilon=c.epsilon, name="encoder_norm")(x)


class Block(nn.Module):
    """Self-attention and feed-forward, each normed before and added after."""

    config: T5Encoder

    @nn.compact
    def __call__(self, x: Array, bias: Array, masked: Array) -> Array:
        """One block on [B, L, D] with biases [1, N, L, L] and [B, 1, 1, L]."""
        c = self.config
        norm = {"dtype": c.dtype, "epsilon": c.epsilon}
        h = layers.RMSNorm(name="pre_attention_layer_norm", **norm)(x)
        x = x + Attention(c, name="attention")(h, bias, masked)
        h = layers.RMSNorm(name="pre_mlp_layer_norm", **norm)(x)
        x = x + FeedForward(c, name="mlp")(h)
        return layers.constrain(x, "batch", "length", "act_embed")


class Attention(nn.Module):
    """Self-attention whose logits are not divided by sqrt(K).

    T5 has folded that factor into the query kernel's initial values.
    """

    config: T5Encoder

    @nn.compact
    def __call__(self, x: Array, bias: Array, masked: Array) -> Array:
        """Attend within [B, L, D]; logits and softmax in float32."""
        c = self.config
        width = c.num_heads * c.head_dim
        tokens = x.reshape(-1, c.d_model)

        def query_init(*args):
            return attention_init(*args) / np.sqrt(c.head_dim)

        def project(name: str, init: Callable = attention_init):
            axes = ("embed", "joined_kv")
            y = dense(width, axes, name=name, dtype=c.dtype, init=init)(tokens)
            y = y.reshape(*x.shape[:2], c.num_heads, c.head_dim)
            # Heads before length: on CPU the products below are then 5 times faster.
            y = y.transpose(0, 2, 1, 3)
            return layers.constrain(y, "batch", "act_heads", "length", None)

        query = project("query", query_init)
        key, value = project("key"), project("value")
        logits = jnp.einsum(
            "bnqk,bnvk->bnqv", query, key, preferred_element_type=jnp.float32
        )
        logits = logits + bias + masked
        # A softmax whose division comes last: what lies in memory between the two
        # products is then one array of the activations' dtype, not two of float32.
        weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        y = jnp.einsum(
            "bnqv,bnvk->bnqk",
            weights.astype(c.dtype),
            value,
            preferred_element_type=jnp.float32,
        )
        y = (y / total).astype(c.dtype)
        y = y.transpose(0, 2, 1, 3).reshape(-1, width)
        out = dense(
            c.d_model,
            ("joined_kv", "embed"),
            name="out",
            dtype=c.stream_dtype,
            init=attention_init,
        )
        return out(y).reshape(x.shape)


class FeedForward(nn.Module):
    """wo(gelu(wi_0 x) * wi_1 x) with GELU's tanh form; in T5 1.0 wo(relu(wi x))."""

    config: T5Encoder

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The feed-forward on [B, L, D]; the result has the stream's type."""
        c = self.config
        tokens = x.reshape(-1, c.d_model)

        def project(name: str):
            y = dense(c.d_ff, ("embed", "mlp"), name=name, dtype=c.dtype)(tokens)
            return y.astype(c.stream_dtype)

        if c.gated:
            y = nn.gelu(project("wi_0"), approximate=True) * project("wi_1")
        else:
            y = nn.relu(project("wi"))
        y = layers.constrain(y, "batch", "act_mlp")
        axes = ("mlp", "embed")
        out = dense(c.d_model, axes, name="wo", dtype=c.stream_dtype)
        return out(y).reshape(x.shape)


def dense(
    features: int,
    axes: tuple[str, str],
    *,
    name: str,
    dtype: DTypeLike,
    init: Callable = layers.default_init,
) -> nn.Dense:
    """A product without bias, to be applied to tokens [B * L, D].

    Joining B and L first makes the kernels' gradients nearly twice as fast on CPU.
    """
    return layers.Dense(
        features, axes, name=name, dtype=dtype, use_bias=False, kernel_init=init
    )


class RelativePositionBias(nn.Module):
    """A learned bias for each head and bucket of distance, shared by all blocks."""

    num_heads: int
    buckets: int
    max_distance: int

    @nn.compact
    def __call__(self, length: int) -> Array:
        """The bias [1, N, L, L] of queries (third axis) and keys (last)."""
        table = self.param(
            "rel_embedding",
            layers.partitioned(relpos_init, "heads", "relpos_buckets"),
            (self.num_heads, self.buckets),
        )
        bucket = relative_position_bucket(length, self.buckets, self.max_distance)
        # A product with a one-hot is an exact gather whose gradient needs no scatter.
        one_hot = jax.nn.one_hot(bucket, self.buckets)
        bias = jnp.einsum(
            "nr,qvr->nqv", table, one_hot, precision=jax.lax.Precision.HIGHEST
        )
        return bias[None]


def relative_position_bucket(
    length: int, buckets: int, max_distance: int
) -> np.ndarray:
    """The bucket of each (query, key) pair, int32 [L, L].

    Half of the buckets are for keys after the query. Of each half, one half is for
    single distances 0, 1, 2..., the other for distances growing by equal factors up to
    `max_distance`, beyond which all fall into the last (Raffel et al. 2020, 2.1).
    """
    position = np.arange(length)
    distance = position[None, :] - position[:, None]
    half = buckets // 2
    exact = half // 2
    far = np.abs(distance)
    # As t5x and the original: float32 logarithms decide the buckets' edges.
    ratio = np.maximum(far, 1).astype(np.float32) / exact
    growth = np.log(ratio) / np.log(max_distance / exact) * (half - exact)
    coarse = np.minimum(exact + growth.astype(np.int32), half - 1)
    return (
        np.where(far < exact, far, coarse) + np.where(distance > 0, half, 0)
    ).astype(np.int32)


class TokenLogits(NamedTuple):
    """Logits [B, L, V], float32: of the token at a place and of the words beside it."""

    token: Array
    previous: Array
    next: Array


class MaskedLanguageModel(nn.Module):
    """An encoder with linear heads that predict ids, for pretraining.

    The encoder's parameters are the subtree "encoder", unchanged by the heads.
    """

    encoder: T5Encoder

    @nn.compact
    def __call__(self, ids: Array, mask: Array) -> TokenLogits:
        """Predict from ids [B, L] int32 and mask [B, L]."""
        x = self.encoder(ids, mask)
        vocab = self.encoder.vocab_size

        def head(name):
            logits = layers.Dense(vocab, ("embed", "vocab"), name=name)
            return logits(x.reshape(-1, x.shape[-1])).reshape(*ids.shape, vocab)

        return TokenLogits(
            head("logits_dense"), head("previous_dense"), head("next_dense")
        )


def sized(vocab_size: int, sizes: tuple[int, int, int, int], **fields) -> T5Encoder:
    """An encoder of the sizes (D, layers, heads, hidden width)."""
    d_model, num_layers, num_heads, d_ff = sizes
    return T5Encoder(
        **{"head_dim": 64, **fields},
        vocab_size=vocab_size,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        d_ff=d_ff,
    )


# `XXL.clone(dtype=jnp.bfloat16)` changes a field.
# T5 v1.1: t5x/examples/t5/t5_1_1/*.gin.
SMALL = sized(32128, (512, 8, 6, 1024))
BASE = sized(32128, (768, 12, 12, 2048))
LARGE = sized(32128, (1024, 24, 16, 2816))
XL = sized(32128, (2048, 24, 32, 5120))
XXL = sized(32128, (4096, 24, 64, 10240))

# ByT5: Xue et al. 2021, table 1, with the heads and widths of t5x/examples/t5/byt5.
BYT5_SMALL = sized(384, (1472, 12, 6, 3584))
BYT5_BASE = sized(384, (1536, 18, 12, 3968))
BYT5_LARGE = sized(384, (1536, 36, 16, 3840))
BYT5_XL = sized(384, (2560, 36, 32, 6720))
BYT5_XXL = sized(384, (4672, 36, 64, 12352))

# T5 1.0: Raffel et al. 2020, section 3.7.
T5_SMALL = sized(32128, (512, 6, 8, 2048), gated=False)
T5_BASE = sized(32128, (768, 12, 12, 3072), gated=False)
T5_LARGE = sized(32128, (1024, 24, 16, 4096), gated=False)
T5_3B = sized(32128, (1024, 24, 32, 16384), gated=False, head_dim=128)
T5_11B = sized(32128, (1024, 24, 128, 65536), gated=False, head_dim=128)
