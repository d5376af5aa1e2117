"""Prompts to the sequence of vectors that the networks attend to."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from imagen_jax.models import t5
from imagen_jax.text import tokenizer
from imagen_jax.types import Array, Bool, Float, Int, typechecked


class TextEmbedding(NamedTuple):
    """An encoded text.

    Attributes:
      values: float32, zero where `mask` is False.
      mask: True at the text's tokens, eos included.
    """

    values: Float[Array, "B L D"]
    mask: Bool[Array, "B L"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A tokenizer and a network, without parameters.

    Attributes:
      module: the network, (ids, mask) -> values.
      tokenizer: strings to ids.
      length: L, tokens a prompt may have; every prompt is padded to it.
    """

    module: t5.T5Encoder
    tokenizer: tokenizer.Tokenizer
    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"TextEncoder: length must be >= 1, got {self.length}.")
        if self.tokenizer.vocab_size > self.module.vocab_size:
            raise ValueError(
                f"TextEncoder: the network's vocabulary must hold the tokenizer's "
                f"{self.tokenizer.vocab_size} ids, got {self.module.vocab_size}."
            )

    def __call__(self, params: Any, prompts: Sequence[str]) -> TextEmbedding:
        """Encode prompts with the network's parameters.

        Raises:
          ValueError: for a prompt of more than `length` tokens.
        """
        ids, mask = self.tokenizer.encode(prompts, self.length)
        return _jitted(self.module, params, ids, mask)

    def truncated(self, params: Any, prompts: Sequence[str]) -> TextEmbedding:
        """Encode prompts, those of more than `length` tokens cut."""
        ids, mask = self.tokenizer.encode(prompts, self.length, truncate=True)
        return _jitted(self.module, params, ids, mask)

    encode = __call__


@typechecked
def embed(
    module: t5.T5Encoder, params: Any, ids: Int[Array, "B L"], mask: Bool[Array, "B L"]
) -> TextEmbedding:
    """The embedding of ids, zero at padding; pure, for use inside a jitted step."""
    values = cast("Array", module.apply({"params": params}, ids, mask))
    return TextEmbedding(jnp.where(mask[:, :, None], values, 0.0), mask)


_jitted = jax.jit(embed, static_argnums=0)
