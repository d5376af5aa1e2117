"""What a denoising network may be told besides the noisy image."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from imagen_jax import pytrees
from imagen_jax.types import Array, Bool, Float, Key


@partial(
    pytrees.register_dataclass,
    data_fields=["tokens", "mask", "vector", "planes", "aug_level", "control"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditioning:
    """Conditions by mechanism; every field is optional.

    Attributes:
      tokens: a sequence that attention reads (text embeddings).
      mask: True where `tokens` are real.
      vector: added to the time embedding (an image embedding, a class).
      planes: images at the network's resolution, concatenated at the stem (the
        upsampled low-resolution picture, known pixels).
      aug_level: noise on the planes, in the units of t: 0 is clean, 1 is noise.
      control: a picture for a side network.
    """

    tokens: Float[Array, "B L D"] | None = None
    mask: Bool[Array, "B L"] | None = None
    vector: Float[Array, "B F"] | None = None
    planes: Float[Array, "B H W P"] | None = None
    aug_level: Float[Array, " B"] | None = None
    control: Float[Array, "B H2 W2 Q"] | None = None

    def null(self) -> "Conditioning":
        """The same conditioning without text: zero tokens, the mask kept.

        Zeros are Imagen's null (Saharia et al. 2022, section 4.1); that the mask stays
        is a guess where the paper is silent. A vector is text's too and is zeroed;
        planes, their noise level and control pictures stay.
        """
        zero = partial(jax.tree.map, jnp.zeros_like)
        return dataclasses.replace(
            self, tokens=zero(self.tokens), vector=zero(self.vector)
        )

    def drop_text(self, key: Key[Array, ""], rate: float) -> "Conditioning":
        """Replace each example's text by the null with probability `rate`.

        Training with 10 % dropped text makes classifier-free guidance possible
        (Saharia et al. 2022, section 4.1).
        """
        if self.tokens is None:
            return self
        keep = jax.random.bernoulli(key, 1.0 - rate, self.tokens.shape[:1])

        def drop(a):
            return jnp.where(keep.reshape((-1,) + (1,) * (a.ndim - 1)), a, 0)

        return dataclasses.replace(
            self,
            tokens=drop(self.tokens),
            vector=None if self.vector is None else drop(self.vector),
        )

    def interleave(self, other: "Conditioning") -> "Conditioning":
        """Pair two conditionings example by example: [B] and [B] give [2B].

        Interleaving, unlike concatenation, keeps each pair on its device when the
        batch is sharded, so that guidance costs no communication.
        """
        return jax.tree.map(
            lambda a, b: jnp.stack([a, b], axis=1).reshape((-1, *a.shape[1:])),
            self,
            other,
        )
