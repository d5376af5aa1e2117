"""Prompts between two prompts: how they are written, and their embeddings."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagen_jax.text.encoder import TextEmbedding

WRITTEN = re.compile(r"(?P<first>.+) ~> (?P<second>.+) @ (?P<share>[0-9.]+)", re.DOTALL)


def written(first: str, second: str, share: float) -> str:
    """The prompt that lies `share` of the way from `first` to `second`."""
    return f"{first} ~> {second} @ {share:g}"


def way(first: str, second: str, count: int) -> list[str]:
    """`count` >= 2 prompts from `first` to `second` in equal steps, both among them."""
    return [written(first, second, round(i / (count - 1), 4)) for i in range(count)]


def parts(prompt: str) -> tuple[str, str, float]:
    """What a prompt lies between, and where: (first, second, share in [0, 1]).

    A prompt that is not `written` so lies at itself.

    Raises:
      ValueError: for a share outside [0, 1].
    """
    found = WRITTEN.fullmatch(prompt)
    if found is None:
        return prompt, prompt, 0.0
    try:
        share = float(found["share"])
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError(
            f"sample: a prompt between two ends in ' @ SHARE', SHARE in [0, 1], got "
            f"{prompt!r}."
        )
    return found["first"], found["second"], share


def between(
    first: TextEmbedding, second: TextEmbedding, shares: Sequence[float]
) -> TextEmbedding:
    """Host arrays `shares` [B] of the way from one embedding to another, [B, L, D].

    Token by token, (1 - share) first + share second. Where only one has a token it
    comes with its share, since values at padding are zero. Between the ends the mask
    holds the tokens of both; at 0 and 1 the embedding is that of the one prompt, to the
    bit.
    """
    share = np.asarray(shares, np.float32)[:, None]
    along = share[..., None]
    values: Any = (1.0 - along) * first.values + along * second.values
    mask: Any = ((share < 1.0) & first.mask) | ((share > 0.0) & second.mask)
    return TextEmbedding(values, mask)
