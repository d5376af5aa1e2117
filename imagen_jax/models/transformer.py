"""Self-attention and feed-forward with biases, as CLIP's towers and BERT have them.

Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762). T5 differs: no biases, no
division by sqrt(K), a gated feed-forward (`models/t5.py`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.models import layers
from imagen_jax.types import Array

# Finite: a row whose keys are all masked stays finite.
MASKED = -1e10


def exact_gelu(x: Array) -> Array:
    """x Phi(x), with the error function (Hendrycks and Gimpel 2016)."""
    return nn.gelu(x, approximate=False)


def quick_gelu(x: Array) -> Array:
    """x sigmoid(1.702 x), OpenAI CLIP's approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


# By the names that `hidden_act` has in a Hugging Face config.
ACTIVATIONS = {"gelu": exact_gelu, "quick_gelu": quick_gelu}


def check_sizes(network: str, width: int, heads: int, activation: str) -> None:
    """Raise a ValueError for sizes of which no network can be made."""
    if heads < 1 or width % heads:
        raise ValueError(
            f"{network}: d_model must be a multiple of num_heads, got {width} and "
            f"{heads}."
        )
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{network}: activation must be one of {sorted(ACTIVATIONS)}, got "
            f"{activation!r}."
        )


def check_length(network: str, length: int, most: int) -> None:
    """Raise a ValueError for a text with more tokens than there are positions."""
    if length > most:
        raise ValueError(
            f"{network}: texts may have {most} tokens, as many as it has positions, "
            f"got {length}. Set the text's length to {most} or less."
        )


def positions(module: nn.Module, size: int, width: int) -> Array:
    """The learned vectors [size, width] of positions, a parameter of `module`."""
    init = layers.partitioned(nn.initializers.normal(0.02), None, "embed")
    table: Any = module.param("position_embedding", init, (size, width))
    return table


class SelfAttention(nn.Module):
    """Attention of tokens to each other, heads joined in the kernels' second axis.

    Attributes:
      width: D.
      heads: N, which divides D.
      dtype: of the activations; logits and softmax are float32.
    """

    width: int
    heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, bias: Array | None = None) -> Array:
        """Attend within [B, L, D]; `bias` [B, 1, L, L] or [B, 1, 1, L] is added."""
        tokens = x.reshape(-1, self.width)

        def project(name: str) -> Array:
            y = layers.Dense(
                self.width, ("embed", "joined_kv"), name=name, dtype=self.dtype
            )(tokens)
            y = y.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)
            return layers.constrain(y, "batch", "act_heads", "length", None)

        query, key, value = project("query"), project("key"), project("value")
        query = query * query.shape[-1] ** -0.5
        logits = jnp.einsum(
            "bnqk,bnvk->bnqv", query, key, preferred_element_type=jnp.float32
        )
        if bias is not None:
            logits = logits + bias
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        y = jnp.einsum("bnqv,bnvk->bnqk", weights, value)
        y = y.transpose(0, 2, 1, 3).reshape(-1, self.width)
        out = layers.Dense(
            self.width, ("joined_kv", "embed"), name="out", dtype=self.dtype
        )
        return out(y).reshape(x.shape)


class FeedForward(nn.Module):
    """wo(activation(wi x)).

    Attributes:
      width: D.
      hidden: width between the two layers.
      activation: one of `ACTIVATIONS`.
      dtype: of the activations.
    """

    width: int
    hidden: int
    activation: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The feed-forward on [B, L, D]."""
        tokens = x.reshape(-1, self.width)
        wi = layers.Dense(self.hidden, ("embed", "mlp"), name="wi", dtype=self.dtype)
        wo = layers.Dense(self.width, ("mlp", "embed"), name="wo", dtype=self.dtype)
        h = ACTIVATIONS[self.activation](wi(tokens))
        return wo(layers.constrain(h, "batch", "act_mlp")).reshape(x.shape)


class Block(nn.Module):
    """Self-attention and feed-forward, each with a norm and added.

    Attributes:
      width: D.
      heads: N, which divides D.
      hidden: width of the feed-forward.
      activation: one of `ACTIVATIONS`.
      epsilon: of the norms.
      norm_first: norm what each of the two reads (CLIP), or its sum after (BERT).
      dtype: of the activations.
    """

    width: int
    heads: int
    hidden: int
    activation: str
    epsilon: float
    norm_first: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, bias: Array | None = None) -> Array:
        """One block on [B, L, D]; `bias` as of `SelfAttention`."""
        norm = {"dtype": self.dtype, "epsilon": self.epsilon}
        attention = SelfAttention(self.width, self.heads, self.dtype, name="attention")
        mlp = FeedForward(
            self.width, self.hidden, self.activation, self.dtype, name="mlp"
        )
        attention_norm = layers.LayerNorm(name="attention_norm", **norm)
        mlp_norm = layers.LayerNorm(name="mlp_norm", **norm)
        if self.norm_first:
            x = x + attention(attention_norm(x), bias)
            x = x + mlp(mlp_norm(x))
        else:
            x = attention_norm(x + attention(x, bias))
            x = mlp_norm(x + mlp(x))
        return layers.constrain(x, "batch", "length", "act_embed")


def block_of(network: Any, name: str, *, norm_first: bool) -> Block:
    """A block of a network's sizes: CLIP's towers and BERT name them alike."""
    return Block(
        network.d_model,
        network.num_heads,
        network.d_ff,
        network.activation,
        network.epsilon,
        norm_first,
        network.dtype,
        name=name,
    )
