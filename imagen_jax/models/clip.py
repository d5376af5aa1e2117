"""The two towers of CLIP (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

Imagen compares its text tower with T5 and BERT (Saharia et al. 2022, section 4.4), and
both towers make the CLIP score. The layout is that of OpenAI's and OpenCLIP's models as
transformers has them: blocks normed before, learned positions, biases everywhere but in
the patches and the projections.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.models import layers, transformer
from imagen_jax.types import Array, Float, typechecked

LAYERS = ("last", "penultimate")


class CLIPText(nn.Module):
    """Token ids to contextual embeddings, each seeing only the tokens before it.

    All choices of `layer` and `final_norm` have the same parameters, so one file serves
    them all; what a choice does not read is not computed under jit.

    Attributes:
      vocab_size: rows of the embedding table.
      d_model: width D of the embeddings.
      num_layers: blocks of attention and feed-forward.
      num_heads: attention heads.
      d_ff: hidden width of the feed-forward.
      max_length: positions, the most tokens of a text.
      activation: one of `transformer.ACTIVATIONS`.
      epsilon: of the norms.
      layer: the embeddings come after the "last" block, or the "penultimate" one
        (`hidden_states[-2]` of transformers).
      final_norm: norm them with the model's last norm; Stable Diffusion 2 does so with
        penultimate ones, Stable Diffusion XL does not.
      dtype: of the activations; norms' statistics, softmax and result are float32.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    max_length: int = 77
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    layer: str = "last"
    final_norm: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: Array, mask: Array) -> Array:
        """Encode ids [B, L] int32 with mask [B, L] (True at tokens) to [B, L, D].

        Masked keys get no attention; values at masked places mean nothing. A mask of
        True alone gives what models have that read padding too.

        Raises:
          ValueError: if L is over `max_length`, or a field makes no sense.
        """
        name = type(self).__name__
        transformer.check_sizes(name, self.d_model, self.num_heads, self.activation)
        transformer.check_length(name, ids.shape[1], self.max_length)
        if self.layer not in LAYERS:
            raise ValueError(f"{name}: layer must be {LAYERS}, got {self.layer!r}.")
        embed = layers.Embed(
            self.vocab_size, self.d_model, dtype=self.dtype, name="token_embedder"
        )
        places = transformer.positions(self, self.max_length, self.d_model)
        x = embed(ids) + places[None, : ids.shape[1]].astype(self.dtype)
        x = layers.constrain(x, "batch", "length", "act_embed")
        seen = (
            jnp.tril(jnp.ones((1, 1, *ids.shape[1:] * 2), bool)) & mask[:, None, None]
        )
        bias = jnp.where(seen, 0.0, transformer.MASKED)
        before = x
        for i in range(self.num_layers):
            before, x = (
                x,
                transformer.block_of(self, f"layers_{i}", norm_first=True)(x, bias),
            )
        x = before if self.layer == "penultimate" else x
        normed = layers.LayerNorm(epsilon=self.epsilon, name="final_norm")(x)
        return normed if self.final_norm else x.astype(jnp.float32)


class CLIPTextTower(nn.Module):
    """A text as one vector, to compare with images.

    Attributes:
      text: the encoder, of the last layer and normed.
      projection: width P of the vector.
      eos_id: the text's vector is read at its first token of this id; None: at the
        first of its largest id, which is eos in OpenAI's vocabulary. (Old configs give
        a wrong eos id of 2, by which transformers knows to do so.)
    """

    text: CLIPText
    projection: int
    eos_id: int | None

    @nn.compact
    def __call__(self, ids: Array, mask: Array) -> tuple[Array, Array]:
        """Texts [B, L] -> (the vectors at eos [B, D], their projections [B, P]).

        Projections are as they come, not of length one.
        """
        if (self.text.layer, self.text.final_norm) != ("last", True):
            raise ValueError(
                "CLIPTextTower: text.layer must be 'last' and text.final_norm True, "
                f"got {self.text.layer!r} and {self.text.final_norm}."
            )
        hidden = self.text(ids, mask)
        key = ids if self.eos_id is None else ids == self.eos_id
        pooled = hidden[jnp.arange(len(ids)), jnp.argmax(key, axis=1)]
        return pooled, _project(self.projection, self.text.dtype)(pooled)


class CLIPImage(nn.Module):
    """Pictures to one vector each, a vision transformer (Dosovitskiy et al. 2021).

    Attributes:
      image_size: height and width of the pictures.
      patch_size: side of a patch, which divides image_size.
      d_model: width D of the tokens.
      num_layers: blocks of attention and feed-forward.
      num_heads: attention heads.
      d_ff: hidden width of the feed-forward.
      projection: width P of the vector.
      activation: one of `transformer.ACTIVATIONS`.
      epsilon: of the norms.
      dtype: of the activations; norms' statistics, softmax and result are float32.
    """

    image_size: int
    patch_size: int
    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    projection: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Images [B, H, W, 3] that `Preprocessing` made -> [B, P], not normalised.

        Raises:
          ValueError: for images of another size, or if a field makes no sense.
        """
        name, size = type(self).__name__, self.image_size
        transformer.check_sizes(name, self.d_model, self.num_heads, self.activation)
        if images.shape[1:3] != (size, size):
            raise ValueError(
                f"{name}: images must be {size} x {size}, as many positions are "
                f"learned, got {images.shape[1]} x {images.shape[2]}."
            )
        # The convolution of patches with themselves, as one product.
        x = layers.space_to_depth(images, self.patch_size)
        x = x.reshape(len(x), -1, x.shape[-1])
        patches = layers.Dense(
            self.d_model,
            (None, "embed"),
            name="patches",
            dtype=self.dtype,
            use_bias=False,
        )
        init = layers.partitioned(nn.initializers.normal(0.02), None)
        first: Any = self.param("class_embedding", init, (self.d_model,))
        first = jnp.broadcast_to(first.astype(self.dtype), (len(x), 1, self.d_model))
        places = transformer.positions(self, 1 + x.shape[1], self.d_model)
        x = jnp.concatenate([first, patches(x)], axis=1)
        x = x + places[None].astype(self.dtype)
        norm = {"epsilon": self.epsilon, "dtype": self.dtype}
        x = layers.LayerNorm(name="first_norm", **norm)(x)
        for i in range(self.num_layers):
            x = transformer.block_of(self, f"layers_{i}", norm_first=True)(x, None)
        pooled = layers.LayerNorm(epsilon=self.epsilon, name="final_norm")(x[:, 0])
        return _project(self.projection, self.dtype)(pooled)


def _project(width: int, dtype: DTypeLike):
    dense = layers.Dense(
        width, ("embed", "mlp"), name="projection", dtype=dtype, use_bias=False
    )
    return lambda x: dense(x).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From our pictures to what `CLIPImage` reads.

    The shorter side is resized to `resize`, the longer one in proportion, rounded down;
    the middle `crop` x `crop` are kept. The resize is bicubic (Keys 1981, a = -1/2)
    and antialiased, rows first, clipped to the range of pixels after each pass as
    Pillow's is; but it is not rounded to whole pixel values, so that gradients pass: a
    picture differs from transformers' by at most one pixel value of 255, by a third on
    average.

    Attributes:
      resize: length of the shorter side.
      crop: height and width of the result, at most `resize`.
      mean: of the channels of pictures in [0, 1], which is subtracted.
      std: by which the channels are then divided.
    """

    resize: int = 224
    crop: int = 224
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise ValueError(
                f"Preprocessing: crop must be between 1 and resize = {self.resize}, "
                f"got {self.crop}."
            )
        if not len(self.mean) == len(self.std) == 3 or min(self.std) <= 0:
            raise ValueError(
                "Preprocessing: mean and std must be of three channels, std positive, "
                f"got {self.mean} and {self.std}."
            )

    def __call__(self, images: Array) -> Array:
        """Images [B, H, W, 3] float in [-1, 1] -> [B, crop, crop, 3] float32."""
        return _prepare(jnp.asarray(images), self)


@typechecked
def _prepare(
    images: Float[Array, "B H W 3"], settings: Preprocessing
) -> Float[Array, "B S S 3"]:
    height, width = images.shape[1:3]
    short = min(height, width)
    sides = [settings.resize * side // short for side in (height, width)]
    x = images.astype(jnp.float32) / 2 + 0.5
    for shape in ((len(x), height, sides[1], 3), (len(x), *sides, 3)):
        if shape != x.shape:
            x = jax.image.resize(x, shape, "bicubic", antialias=True)
            x = jnp.clip(x, 0.0, 1.0)
    top, left = ((side - settings.crop) // 2 for side in sides)
    x = x[:, top : top + settings.crop, left : left + settings.crop]
    mean, std = (
        jnp.array(a).reshape(1, 1, 1, 3) for a in (settings.mean, settings.std)
    )
    return (x - mean) / std
