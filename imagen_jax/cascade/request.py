"""What is asked of a stage or a cascade, beside the random keys and the settings."""

import dataclasses
from functools import partial

import jax

from imagen_jax.text.encoder import TextEmbedding
from imagen_jax.types import Array, Float


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["text", "empty", "low_res", "negative"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A pytree: other prompts and pictures never recompile. One of each a picture.

    Attributes:
      text: the embedded prompts; None for stages without text.
      empty: the embedded empty prompt, for stages whose guidance leads away from it.
      low_res: pictures [-1, 1] that super-resolution starts from. A cascade then
        begins at the stage that takes their size.
      negative: embedded negative prompts, which guidance leads away from in place of
        the stages' own null; None: that.
    """

    text: TextEmbedding | None = None
    empty: TextEmbedding | None = None
    low_res: Float[Array, "B h w C"] | None = None
    negative: TextEmbedding | None = None
