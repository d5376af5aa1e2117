"""Pretraining of a text encoder on text alone: find what was masked.

Imagen's encoder has learned from text only and stays frozen (Saharia et al. 2022,
section 2.1). T5 learned by span corruption; here the encoder, which has no decoder,
predicts the masked tokens at their own places, as BERT does (Devlin et al. 2019).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imagen_jax.models import t5
from imagen_jax.types import Array, Bool, Key, typechecked


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedTokenTask:
    """The pretraining task of an encoder; its parameters are `params["encoder"]`.

    Attributes:
      encoder: the network to pretrain.
      rate: share of tokens hidden in spans.
      mean_span: mean length of a span in tokens, at least 1.
      mask_id: the id that hides a token: the first of ByT5's extra ids.
    """

    encoder: t5.T5Encoder
    rate: float = 0.15
    mean_span: float = 1.0
    mask_id: int = 259

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(
                f"MaskedTokenTask: rate must be in (0, 1), got {self.rate}."
            )
        if self.mean_span < 1.0:
            raise ValueError(
                f"MaskedTokenTask: mean_span must be >= 1, got {self.mean_span}."
            )
        if not 0 <= self.mask_id < self.encoder.vocab_size:
            raise ValueError(
                f"MaskedTokenTask: mask_id must be in the encoder's vocabulary of "
                f"{self.encoder.vocab_size}, got {self.mask_id}."
            )

    @property
    def module(self) -> t5.MaskedLanguageModel:
        """The encoder and its head."""
        return t5.MaskedLanguageModel(self.encoder)

    def init(self, key: Array) -> Any:
        """Parameters of encoder and head, boxed with their logical axes."""
        ids, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
        return self.module.init(key, ids, mask)["params"]

    def loss(
        self, key: Array, params: Any, frozen: Any, batch: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Per-example losses [B] and metrics of a batch {"tokens", "mask"}."""
        del frozen
        return masked_token_loss(key, self, params, batch["tokens"], batch["mask"])


def masked_token_loss(
    key: Array, task: MaskedTokenTask, params: Any, ids: Array, mask: Array
) -> tuple[Array, dict[str, Array]]:
    """Mean cross-entropy, in nats, of each text's hidden tokens.

    Returns:
      (losses [B], {"accuracy": share of hidden tokens found}).
    """
    hidden = spans(key, mask, task.rate, task.mean_span)
    shown = jnp.where(hidden, task.mask_id, ids)
    logits = task.module.apply({"params": params}, shown, mask)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
    count = hidden.sum(1)
    losses = jnp.sum(nats * hidden, axis=1) / jnp.maximum(count, 1)
    right = jnp.sum((logits.argmax(-1) == ids) & hidden)
    return losses, {"accuracy": right / jnp.maximum(hidden.sum(), 1)}


@typechecked
def spans(
    key: Key[Array, ""], mask: Bool[Array, "B L"], rate: float, mean_span: float
) -> Bool[Array, "B L"]:
    """Choose about `rate` of the True places of `mask` in geometric spans."""
    begin_key, size_key = jax.random.split(key)
    places = jnp.arange(mask.shape[1])[None, :]
    begin = jax.random.bernoulli(begin_key, rate / mean_span, mask.shape)
    size = jnp.ones(mask.shape, jnp.int32)
    if mean_span > 1.0:
        size = jax.random.geometric(size_key, 1.0 / mean_span, mask.shape)
    ends = jax.lax.cummax(jnp.where(begin, places + size, 0), axis=1)
    return (ends > places) & mask
