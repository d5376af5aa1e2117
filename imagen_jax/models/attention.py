"""Attention of image positions to each other and to text."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imagen_jax.models import embeddings, layers
from imagen_jax.types import Array, Bool, Float, typechecked

KINDS = ("none", "self", "text")
TEXT_NORMS = ("layer", "group")
TEXT_GROUPS = 32
POSITIONS = ("none", "coordinates")


@typechecked
def attend(
    q: Float[Array, "B Q N K"],
    k: Float[Array, "B M N K"],
    v: Float[Array, "B M N K"],
    mask: Bool[Array, "B M"] | None = None,
) -> Float[Array, "B Q N K"]:
    """softmax(q k^T / sqrt(K)) v for each head; the softmax in float32.

    Keys where `mask` is False weigh exactly nothing; a row without any key gives 0.
    """
    # Heads before positions: XLA's CPU backend multiplies such batches faster.
    q, k, v = (a.swapaxes(1, 2) for a in (q * q.shape[-1] ** -0.5, k, v))
    logits = jnp.einsum("bnqk,bnmk->bnqm", q, k, preferred_element_type=jnp.float32)
    if mask is None:
        weights = jax.nn.softmax(logits, axis=-1)
    else:
        keep = mask[:, None, None, :]
        weights = jax.nn.softmax(jnp.where(keep, logits, -1e9), axis=-1)
        weights = jnp.where(keep, weights, 0.0)
    out = jnp.einsum("bnqm,bnmk->bnqk", weights.astype(v.dtype), v)
    return out.swapaxes(1, 2)


@typechecked
def attend_to_both(
    q: Float[Array, "B Q N K"],
    image: tuple[Float[Array, "B M N K"], Float[Array, "B M N K"]],
    text: tuple[Float[Array, "B L N K"], Float[Array, "B L N K"]],
    mask: Bool[Array, "B L"] | None = None,
) -> Float[Array, "B Q N K"]:
    """`attend` to the image's keys and the text's, without joining them.

    One softmax over both, from two products. Joined keys are copied in each call, and
    where their number is no multiple of a TPU's tile libtpu 0.0.52 fails to compile
    that for v6e.
    """
    q = (q * q.shape[-1] ** -0.5).swapaxes(1, 2)
    logits = [
        jnp.einsum(
            "bnqk,bnmk->bnqm", q, k.swapaxes(1, 2), preferred_element_type=jnp.float32
        )
        for k, _ in (image, text)
    ]
    if mask is not None:
        logits[1] = jnp.where(mask[:, None, None, :], logits[1], -jnp.inf)
    # The image's keys are never masked, so that this is finite.
    top = jnp.maximum(*(part.max(axis=-1, keepdims=True) for part in logits))
    weights = [jnp.exp(part - top) for part in logits]
    total = weights[0].sum(-1, keepdims=True) + weights[1].sum(-1, keepdims=True)
    first, second = (
        jnp.einsum("bnqm,bnmk->bnqk", (part / total).astype(v.dtype), v.swapaxes(1, 2))
        for part, (_, v) in zip(weights, (image, text), strict=True)
    )
    return (first + second).swapaxes(1, 2)


class Attention(nn.Module):
    """A residual attention layer on a feature map.

    "self": image positions attend to each other and to the text at once, text keys
    and values concatenated to the image's own (Saharia et al. 2022, section 2.5).
    "text": they attend to the text only, which leaves the network fully
    convolutional (the 256 -> 1024 model). LayerNorm on the text tokens (D.3.1), or
    DeepFloyd IF's GroupNorm, whose statistics are also taken over the tokens; keys and
    values of the text depend on nothing else, so a sampling loop computes them once.

    Attributes:
      kind: "self" or "text".
      heads: number of heads.
      width: channels of all heads together.
      positions: "none" (the paper) or "coordinates", sinusoids of the normalised
        coordinates added to queries and keys.
      residual_scaling: divide the sum by sqrt(2).
      num_groups: of the image's norm; None: `layers.groups` of its channels.
      text_norm: of the text: "layer" (the paper) or "group", of 32 groups.
      joined: whether "self" joins the keys of image and text in one array, or has
        them apart (`attend_to_both`).
      dtype: of activations.
    """

    kind: str
    heads: int
    width: int
    positions: str = "none"
    residual_scaling: bool = False
    num_groups: int | None = None
    text_norm: str = "layer"
    joined: bool = True
    dtype: DTypeLike = jnp.float32

    def _dense(self, features: int, axes: tuple[str | None, str], name: str, **options):
        return layers.Dense(features, axes, name=name, dtype=self.dtype, **options)

    @nn.compact
    def __call__(self, x, text=None, mask=None):
        """Image [B, H, W, C], text [B, L, D], mask [B, L] -> [B, H, W, C]."""
        if self.kind == "text" and text is None:
            return x
        batch, height, width, channels = x.shape
        grid = height * width
        # Queries, keys and values of one head lie together, so that splitting the
        # heads over devices splits the kernel's columns in one cut.
        parts = 3 if self.kind == "self" else 1
        groups = self.num_groups or layers.groups(channels)
        h = layers.GroupNorm(groups, name="norm", dtype=self.dtype)(x)
        h = h.reshape(batch, grid, channels)
        name = "qkv" if self.kind == "self" else "query"
        h = self._dense(parts * self.width, ("embed", "joined_kv"), name)(h)
        # Positions are rows joined: pictures split by rows stay so.
        h = self._split(h, parts, "height")
        if self.positions == "coordinates":
            # Differs: the paper has no positions in attention. Small networks learn
            # relations ("left of") much sooner with them.
            h = self._add_positions(h, height, width)
        q = h[:, :, :, 0]
        keys, values = [], []
        if self.kind == "self":
            keys, values = [h[:, :, :, 1]], [h[:, :, :, 2]]
        if text is not None:
            t = self._text_norm()(text)
            t = self._dense(2 * self.width, ("embed", "joined_kv"), "text_kv")(t)
            t = self._split(t, 2)
            keys, values = [*keys, t[:, :, :, 0]], [*values, t[:, :, :, 1]]
        h = self._attend(q, keys, values, mask if text is not None else None)
        h = h.reshape(batch, height, width, self.width)
        out = self._dense(
            channels, ("joined_kv", "embed"), "out", kernel_init=layers.zeros_init
        )(h)
        return layers.constrain_image(layers.residual(x, out, self.residual_scaling))

    def _attend(self, q, keys: list, values: list, mask):
        if len(keys) == 2 and not self.joined:
            image, text = zip(keys, values, strict=True)
            return attend_to_both(q, image, text, mask)
        if len(keys) == 2 and mask is not None:
            mask = jnp.concatenate([jnp.ones(q.shape[:2], bool), mask], axis=1)
        k, v = jnp.concatenate(keys, axis=1), jnp.concatenate(values, axis=1)
        return attend(q, k, v, mask)

    def _text_norm(self):
        if self.text_norm == "group":
            return layers.GroupNorm(TEXT_GROUPS, name="text_norm", dtype=self.dtype)
        return layers.LayerNorm(name="text_norm", dtype=self.dtype)

    def _split(self, h, parts: int, positions: str | None = None):
        batch, length, _ = h.shape
        h = h.reshape(batch, length, self.heads, parts, self.width // self.heads)
        return layers.constrain(h, "batch", positions, "act_heads", None, None)

    def _add_positions(self, h, height: int, width: int):
        """Add projected coordinates to queries and, where there are any, keys."""
        parts = min(h.shape[3], 2)
        p = self._dense(
            parts * self.width, (None, "joined_kv"), "positions", use_bias=False
        )(embeddings.coordinates(height, width))
        p = self._split(p[None], parts)
        p = jnp.pad(p, ((0, 0),) * 3 + ((0, h.shape[3] - parts), (0, 0)))
        return h + p


def check_text_map(network: str, width: int, read: bool) -> None:
    """Raise a ValueError for a `text_map` that cannot be made, or that none reads."""
    if width and not read:
        raise ValueError(
            f"{network}: text_map = {width} is read by the feed-forward networks after "
            "attention; set feed_forward, or text_map to 0."
        )
    if width % TextMap.heads:
        raise ValueError(
            f"{network}: text_map must be a multiple of {TextMap.heads} heads, got "
            f"{width}."
        )


class TextMap(nn.Module):
    """What the text says about each position, the noisy image unseen.

    Attention whose queries are the coordinates alone: text that tells where things
    stand meets the positions at full width, and a sampling loop computes it once.
    Without text the map is zero.

    Attributes:
      width: of the result, all heads together.
      heads: number of heads.
      dtype: of the result.
    """

    width: int
    heads: int = 4
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, text, mask, height: int, width: int):
        """Text [B, L, D], mask [B, L] or None -> [B, height, width, self.width]."""

        def dense(features, axes, name, **options):
            return layers.Dense(features, axes, name=name, dtype=self.dtype, **options)

        batch, length, _ = text.shape
        size = self.width // self.heads
        t = layers.LayerNorm(name="text_norm", dtype=self.dtype)(text)
        t = dense(2 * self.width, ("embed", "joined_kv"), "text_kv")(t)
        t = t.reshape(batch, length, self.heads, 2, size)
        t = layers.constrain(t, "batch", None, "act_heads", None, None)
        places = embeddings.coordinates(height, width)
        q = dense(self.width, (None, "joined_kv"), "query")(places)
        q = q.reshape(1, height * width, self.heads, size)
        q = jnp.broadcast_to(q, (batch, *q.shape[1:]))
        h = attend(q, t[:, :, :, 0], t[:, :, :, 1], mask)
        return layers.constrain_image(h.reshape(batch, height, width, self.width))
