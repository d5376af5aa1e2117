"""What is asked of a stage or a cascade, beside the random keys and the settings."""

import dataclasses
from functools import partial

import jax.numpy as jnp
from jax import lax

from imagen_jax import pytrees
from imagen_jax.cascade import images
from imagen_jax.text.encoder import TextEmbedding
from imagen_jax.types import Array, Float


@partial(pytrees.register_dataclass, data_fields=["picture", "mask"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit:
    """A picture to change, at the size of the last stage; one of each a picture.

    Attributes:
      picture: in [-1, 1].
      mask: in [0, 1]: 1 where the picture is drawn anew, 0 where it stays. None: all
        of it is drawn anew, from the noised picture (SDEdit).
    """

    picture: Float[Array, "B H W C"]
    mask: Float[Array, "B H W 1"] | None = None

    def at(self, size: tuple[int, int]) -> "Edit":
        """The same for a stage of this height and width.

        A small pixel is drawn anew as far as the most masked of those it covers is:
        nothing of what is to go is kept by a lower stage.

        Raises:
          ValueError: if the size does not divide the picture's.
        """
        sides = self.picture.shape[1:3]
        if any(large % small for large, small in zip(sides, size, strict=True)):
            raise ValueError(
                f"Edit: the picture's sides must be multiples of the stage's "
                f"{size[0]} x {size[1]}, got {sides[0]} x {sides[1]}; resize it."
            )
        mask = self.mask
        if mask is not None:
            window = (1, sides[0] // size[0], sides[1] // size[1], 1)
            mask = lax.reduce_window(mask, -jnp.inf, lax.max, window, window, "VALID")
        return Edit(picture=images.resize(self.picture, size), mask=mask)


@partial(
    pytrees.register_dataclass,
    data_fields=["text", "empty", "low_res", "negative", "edit"],
    meta_fields=["size"],
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
      edit: pictures to change. Every stage starts from them, as noisy as its recipe's
        `strength` says, and leaves alone what the mask leaves.
      size: (height, width) of the last stage's pictures, static; None: square, as the
        stages were made for.
    """

    text: TextEmbedding | None = None
    empty: TextEmbedding | None = None
    low_res: Float[Array, "B h w C"] | None = None
    negative: TextEmbedding | None = None
    edit: Edit | None = None
    size: tuple[int, int] | None = None
