"""The encoder of BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805).

Imagen compares it with T5 and CLIP (Saharia et al. 2022, section 4.4). Only the encoder
is here: no pooler and no heads of its pretraining. A text is one segment.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.models import layers, transformer
from imagen_jax.types import Array


class BERT(nn.Module):
    """Token ids to contextual embeddings, each seeing all tokens.

    Attributes:
      vocab_size: rows of the embedding table.
      d_model: width D of the embeddings.
      num_layers: blocks of attention and feed-forward.
      num_heads: attention heads.
      d_ff: hidden width of the feed-forward.
      max_length: positions, the most tokens of a text.
      segments: rows of the table of segments, of which only the first is read.
      activation: one of `transformer.ACTIVATIONS`.
      epsilon: of the norms.
      dtype: of the activations; norms' statistics, softmax and result are float32.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    max_length: int = 512
    segments: int = 2
    activation: str = "gelu"
    epsilon: float = 1e-12
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: Array, mask: Array) -> Array:
        """Encode ids [B, L] int32 with mask [B, L] (True at tokens) to [B, L, D].

        Masked keys get no attention; values at masked places mean nothing.

        Raises:
          ValueError: if L is over `max_length`, or a field makes no sense.
        """
        name = type(self).__name__
        transformer.check_sizes(name, self.d_model, self.num_heads, self.activation)
        transformer.check_length(name, ids.shape[1], self.max_length)
        embed = layers.Embed(
            self.vocab_size, self.d_model, dtype=self.dtype, name="token_embedder"
        )
        places = transformer.positions(self, self.max_length, self.d_model)
        init = layers.partitioned(nn.initializers.normal(0.02), None, "embed")
        segments: Any = self.param(
            "segment_embedding", init, (self.segments, self.d_model)
        )
        added = places[: ids.shape[1]] + segments[:1]
        norm = {"dtype": self.dtype, "epsilon": self.epsilon}
        x = embed(ids) + added[None].astype(self.dtype)
        x = layers.LayerNorm(name="embedding_norm", **norm)(x)
        x = layers.constrain(x, "batch", "length", "act_embed")
        bias = jnp.where(mask, 0.0, transformer.MASKED)[:, None, None]
        for i in range(self.num_layers):
            block = transformer.block_of(self, f"layers_{i}", norm_first=False)
            x = block(x, bias)
        return x.astype(jnp.float32)
