"""Pretraining of a text encoder: two objectives.

Imagen's encoder has learned from text only and stays frozen (Saharia et al. 2022,
section 2.1). T5 learned by span corruption with a decoder; these encoders have none.

`MaskedTokenTask` predicts hidden tokens at their own places, as BERT does (Devlin et
al. 2019). Captions are random combinations, so that a hidden word is unpredictable and
only tokens within words can be learned; an encoder that knows words and not their
relations solves that. Hence its second part: every place also predicts the words before
and after its own, which asks each token to know its role in the sentence.

`ContrastiveTask` is asked which of many texts says the same in other words. What a text
says then fills the embeddings evenly, where a network that learns from few pictures
finds it soon; under masked tokens a few directions, which tell where in a sentence a
word stands, are a hundred times larger than those that tell one object from another.
It may also be asked how the things that a text names look and where they stand, which
encoders that learn from pictures know (CLIP, the paper's other choice): what objects
share is then learned once and not once for each, by a network far smaller than the one
that draws.
"""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from imagen_jax.models import t5
from imagen_jax.types import Array, Bool, Float, Int, Key, typechecked

SPACE = ord(" ") + 3  # in the byte vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedTokenTask:
    """The pretraining task of an encoder; its parameters are `params["encoder"]`.

    Attributes:
      encoder: the network to pretrain.
      rate: share of tokens to predict from the others.
      mean_span: mean length in tokens of a run of such tokens, at least 1.
      neighbours: weight of predicting the words beside each token's own; 0 is off.
      mask_id: the id that hides a token: the first of ByT5's extra ids.
      separators: ids after which a word begins; none, and each token is a word.
      word_tokens: how many first tokens of a word tell it from others.
    """

    encoder: t5.T5Encoder
    rate: float = 0.15
    mean_span: float = 1.0
    neighbours: float = 1.0
    mask_id: int = 259
    separators: tuple[int, ...] = (SPACE,)
    word_tokens: int = 4

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(
                f"MaskedTokenTask: rate must be in (0, 1), got {self.rate}."
            )
        for name, least in (("mean_span", 1), ("neighbours", 0), ("word_tokens", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"MaskedTokenTask: {name} must be >= {least}, got "
                    f"{getattr(self, name)}."
                )
        if not 0 <= self.mask_id < self.encoder.vocab_size:
            raise ValueError(
                f"MaskedTokenTask: mask_id must be in the encoder's vocabulary of "
                f"{self.encoder.vocab_size}, got {self.mask_id}."
            )

    @property
    def module(self) -> t5.MaskedLanguageModel:
        """The encoder and its heads."""
        return t5.MaskedLanguageModel(self.encoder)

    def init(self, key: Array) -> Any:
        """Parameters of encoder and heads, boxed with their logical axes."""
        ids, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
        return self.module.init(key, ids, mask)["params"]

    def loss(
        self, key: Array, params: Any, frozen: Any, batch: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Per-example losses [B] and metrics of a batch {"tokens", "mask"}."""
        del frozen
        return masked_token_loss(key, self, params, batch["tokens"], batch["mask"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveTask:
    """Which text of the batch says the same; parameters are `params["encoder"]`.

    As SimCSE with two wordings as the pair (Gao et al. 2021, eq. 1), both ways round.
    With `grounding`, also how the named things look and where they stand: the first
    channels of the tokens, summed over the text, are to be the sum of the things'
    looks, and the sum of outer products of each token's first looks and its next
    channels, one a cell of the picture, that of the things' looks and the cells that
    they cover. So every thing is found in the tokens that name it, with its place.

    Attributes:
      encoder: the network to pretrain.
      temperature: cosines are divided by it.
      grounding: weight of both mean squared errors; 0 is off.
    """

    encoder: t5.T5Encoder
    temperature: float = 0.07
    grounding: float = 0.0

    def __post_init__(self) -> None:
        if self.grounding < 0:
            raise ValueError(
                f"ContrastiveTask: grounding must be >= 0, got {self.grounding}."
            )
        if self.temperature <= 0:
            raise ValueError(
                "ContrastiveTask: temperature must be positive, got "
                f"{self.temperature}."
            )

    def init(self, key: Array) -> Any:
        """Parameters of the encoder, boxed with their logical axes."""
        ids, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
        return {"encoder": self.encoder.init(key, ids, mask)["params"]}

    def loss(
        self, key: Array, params: Any, frozen: Any, batch: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Per-example losses [B] in nats, and the share of pairs found.

        The batch, [B, L] each: "tokens", "mask", "reworded_tokens", "reworded_mask";
        with `grounding` also "looks" [B, K] and "layout" [B, J, cells], J <= K and
        K + cells at most the encoder's width; the metrics `looks` and `layout` are
        their mean squared errors.
        """
        del key, frozen
        ids = jnp.concatenate([batch["tokens"], batch["reworded_tokens"]])
        mask = jnp.concatenate([batch["mask"], batch["reworded_mask"]])
        tokens = self.encoder.apply({"params": params["encoder"]}, ids, mask)
        one, other = jnp.split(mean_direction(cast("Array", tokens), mask), 2)
        logits = one @ other.T / self.temperature
        pairs = jnp.arange(len(logits))
        there, right = _score(logits, pairs)
        back, right_back = _score(logits.T, pairs)
        losses = (there + back) / 2
        metrics = {"found": (jnp.mean(right) + jnp.mean(right_back)) / 2}
        if self.grounding:
            values = jnp.where(mask[..., None], cast("Array", tokens), 0.0)
            errors = grounding_errors(values, batch["looks"], batch["layout"])
            for name, error in errors.items():
                losses = losses + self.grounding * error
                metrics[name] = error.mean()
        return losses, metrics


@typechecked
def grounding_errors(
    tokens: Float[Array, "N L D"],
    looks: Float[Array, "B K"],
    layout: Float[Array, "B J C"],
) -> dict[str, Array]:
    """Mean squared errors [B] of both; N = 2 B, the two wordings of each text."""
    size, (first, cells) = looks.shape[1], layout.shape[1:]
    if size + cells > tokens.shape[-1]:
        raise ValueError(
            f"ContrastiveTask: grounding takes {size} + {cells} channels of the "
            f"encoder, which has {tokens.shape[-1]}. Change config.text.encoder."
        )
    pairs = tokens.reshape(2, -1, *tokens.shape[1:])
    look, where = pairs[..., :size], pairs[..., size : size + cells]
    placed = jnp.einsum("wblj,wblc->wbjc", look[..., :first], where)
    return {
        "looks": jnp.mean((look.sum(2) - looks[None]) ** 2, axis=(0, 2)),
        "layout": jnp.mean((placed - layout[None]) ** 2, axis=(0, 2, 3)),
    }


@typechecked
def mean_direction(
    tokens: Float[Array, "B L D"], mask: Bool[Array, "B L"]
) -> Float[Array, "B D"]:
    """The mean of the tokens of each text, at length 1; zero where there are none."""
    mean = jnp.sum(jnp.where(mask[..., None], tokens, 0.0), axis=1)
    return mean * jax.lax.rsqrt(jnp.sum(mean**2, axis=-1, keepdims=True) + 1e-12)


def masked_token_loss(
    key: Array, task: MaskedTokenTask, params: Any, ids: Array, mask: Array
) -> tuple[Array, dict[str, Array]]:
    """Cross-entropies, in nats, of hidden tokens and of neighbouring words.

    Args:
      key: chooses what is hidden, and how.
      task: the settings.
      params: of `task.module`.
      ids: tokens [B, L].
      mask: True at tokens [B, L].

    Returns:
      (losses [B], metrics): `masked` is the mean over hidden tokens alone, `accuracy`
      the share of them found, `neighbours` the share of neighbouring words found.
    """
    span_key, how_key = jax.random.split(key)
    chosen = spans(span_key, mask, task.rate, task.mean_span)
    shown = corrupt(how_key, ids, chosen, task.mask_id)
    output = task.module.apply({"params": params}, shown, mask)
    logits = cast("t5.TokenLogits", output)
    nats, right = _score(logits.token, ids)
    losses = _mean(nats, chosen, 1)
    metrics = {"masked": _mean(nats, chosen), "accuracy": _mean(right, chosen)}
    if task.neighbours:
        word = word_hash(ids, task.word_tokens, task.encoder.vocab_size)
        found = []
        for place, guess in zip(
            neighbours(ids, mask, task.separators),
            (logits.previous, logits.next),
            strict=True,
        ):
            there = mask & (place >= 0)
            target = jnp.take_along_axis(word, jnp.maximum(place, 0), axis=1)
            nats, right = _score(guess, target)
            losses = losses + task.neighbours * _mean(nats, there, 1)
            found.append(_mean(right, there))
        metrics["neighbours"] = (found[0] + found[1]) / 2
    return losses, metrics


def _score(logits: Array, target: Array) -> tuple[Array, Array]:
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return nats, logits.argmax(-1) == target


def _mean(values: Array, where: Array, axis: int | None = None) -> Array:
    return jnp.sum(values * where, axis) / jnp.maximum(jnp.sum(where, axis), 1)


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


@typechecked
def corrupt(
    key: Key[Array, ""],
    ids: Int[Array, "B L"],
    chosen: Bool[Array, "B L"],
    mask_id: int,
) -> Int[Array, "B L"]:
    """Replace the chosen tokens: 80 % hidden, 10 % by another text's, 10 % kept.

    A token that may be wrong must be checked against its word, so that unhidden tokens
    know their words too (Devlin et al. 2019, section 3.1). The other text is the next
    of the batch, whose letters are as frequent; where it has ended, hide instead.
    """
    u = jax.random.uniform(key, ids.shape)
    other = jnp.roll(ids, 1, axis=0)
    other = jnp.where(other > 1, other, mask_id)
    changed = jnp.where(u < 0.8, mask_id, jnp.where(u < 0.9, other, ids))
    return jnp.where(chosen, changed, ids)


@typechecked
def neighbours(
    ids: Int[Array, "B L"], mask: Bool[Array, "B L"], separators: tuple[int, ...]
) -> tuple[Int[Array, "B L"], Int[Array, "B L"]]:
    """Where the words before and after each place's own begin; -1 if there is none."""
    places = jnp.arange(ids.shape[1])[None, :]
    begins = mask
    if separators:
        after = jnp.isin(ids, jnp.array(separators))[:, :-1]
        begins = mask & jnp.pad(after, ((0, 0), (1, 0)), constant_values=True)
    # The latest beginning at or before each place; then one place earlier than that.
    own = jax.lax.cummax(jnp.where(begins, places, -1), axis=1)
    before = jnp.take_along_axis(own, jnp.maximum(own - 1, 0), axis=1)
    far = ids.shape[1]
    later = jax.lax.cummin(jnp.where(begins, places, far), axis=1, reverse=True)
    later = jnp.pad(later[:, 1:], ((0, 0), (0, 1)), constant_values=far)
    return jnp.where(own > 0, before, -1), jnp.where(later < far, later, -1)


@typechecked
def word_hash(ids: Int[Array, "B L"], tokens: int, classes: int) -> Int[Array, "B L"]:
    """A class for the `tokens` tokens from each place on: words without a word list."""
    padded = jnp.pad(ids, ((0, 0), (0, tokens - 1)))
    total = jnp.zeros_like(ids)
    for k in range(tokens):
        total = (total * 7 + padded[:, k : k + ids.shape[1]]) % classes
    return total
