"""Prompts to the sequence of vectors that the networks attend to."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.text import tokenizer
from imagen_jax.types import Array, Bool, Float, Int, typechecked


class TextEmbedding(NamedTuple):
    """An encoded text.

    Attributes:
      values: float32, zero where `mask` is False.
      mask: True at what the networks attend to: the text's tokens, eos included, or
        all L places (`TextEncoder.unmasked`).
    """

    values: Float[Array, "B L D"]
    mask: Bool[Array, "B L"]


@runtime_checkable
class TextNetwork(Protocol):
    """What is asked of an encoder's network: a Linen module such as T5, CLIP or BERT.

    It is hashable, and calls (ids [B, L] int32, mask [B, L] bool) -> values [B, L, D]
    float32, where masked keys get no attention.
    """

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        ...

    @property
    def d_model(self) -> int:
        """Width D of the values."""
        ...

    @property
    def dtype(self) -> DTypeLike:
        """Of the activations, and of kernels in memory."""
        ...

    def init(self, rngs: Any, ids: Array, mask: Array, /) -> Any:
        """Variables: {"params": boxed parameters}."""
        ...

    def apply(self, variables: Any, ids: Array, mask: Array, /) -> Any:
        """The values of ids."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A tokenizer and a network, without parameters.

    Attributes:
      module: the network, (ids, mask) -> values.
      tokenizer: strings to ids.
      length: L, tokens a prompt may have; every prompt is padded to it.
      unmasked: keep the values at padding and say that all places are text, as
        DeepFloyd IF's networks were trained; the encoder itself still masks padding.
    """

    module: TextNetwork
    tokenizer: tokenizer.Tokenizer
    length: int
    unmasked: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"TextEncoder: length must be >= 1, got {self.length}.")
        if self.tokenizer.vocab_size > self.module.vocab_size:
            raise ValueError(
                f"TextEncoder: the network's vocabulary must hold the tokenizer's "
                f"{self.tokenizer.vocab_size} ids, got {self.module.vocab_size}."
            )

    def init(self, key: Array) -> Any:
        """Boxed Linen parameters of the network."""
        ids = jnp.zeros((1, self.length), jnp.int32)
        return self.module.init(key, ids, ids == 0)["params"]

    def __call__(self, params: Any, prompts: Sequence[str]) -> TextEmbedding:
        """Encode prompts with the network's parameters.

        Raises:
          ValueError: for a prompt of more than `length` tokens.
        """
        ids, mask = self.tokenizer.encode(prompts, self.length)
        return _jitted(self.module, self.unmasked, params, ids, mask)

    def truncated(self, params: Any, prompts: Sequence[str]) -> TextEmbedding:
        """Encode prompts, those of more than `length` tokens cut."""
        ids, mask = self.tokenizer.encode(prompts, self.length, truncate=True)
        return _jitted(self.module, self.unmasked, params, ids, mask)

    encode = __call__


@typechecked
def embed(
    module: TextNetwork,
    params: Any,
    ids: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    *,
    unmasked: bool = False,
) -> TextEmbedding:
    """The embedding of ids, zero at padding; pure, for use inside a jitted step.

    With `unmasked` the values at padding stay and the mask is True everywhere.
    """
    values: Array = module.apply({"params": params}, ids, mask)
    if unmasked:
        return TextEmbedding(values, jnp.ones_like(mask))
    return TextEmbedding(jnp.where(mask[:, :, None], values, 0.0), mask)


@partial(jax.jit, static_argnums=(0, 1))
def _jitted(module: TextNetwork, unmasked: bool, params: Any, ids, mask):
    return embed(module, params, ids, mask, unmasked=unmasked)
