"""What CLIP's and BERT's tokenizers share: their files, and rows between two tokens.

The splitting itself is done by the Rust library `tokenizers`, which is what
transformers uses; it is imported when a tokenizer is first asked for something.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagen_jax.text import tokenizer


def library() -> Any:
    """The module `tokenizers`.

    Raises:
      ImportError: saying what to install.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            f"Tokenizer: CLIP's and BERT's need the package tokenizers ({error}). "
            'Fix: pip install "imagen_jax[tokenizers]".'
        ) from error
    return tokenizers


def read(path: pathlib.Path) -> str:
    """The text of a tokenizer's file.

    Raises:
      ValueError: naming the file if it is missing or no text.
    """
    if not path.is_file():
        raise ValueError(
            f"Tokenizer: there is no file {path}; it is in the model's Hugging Face "
            "folder, or in the folder `tokenizer` beside it."
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"Tokenizer: {path} is damaged ({error}).") from error


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object of a tokenizer's JSON file.

    Raises:
      ValueError: naming the file if it is missing or damaged.
    """
    try:
        values = json.loads(read(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"Tokenizer: {path} is damaged ({error}).") from error
    if not isinstance(values, dict):
        raise ValueError(f"Tokenizer: {path} must hold a JSON object, got {values!r}.")
    return values


def read_model(path: pathlib.Path, kind: str) -> dict[str, Any]:
    """The group `model` of a tokenizer.json: its vocabulary and what belongs to it.

    Only this is read: what surrounds it (the normaliser and so on) is the same in all
    models of a kind, and made here as transformers makes it.

    Args:
      path: of the file.
      kind: the type that the model must have, "BPE" or "WordPiece".

    Raises:
      ValueError: if it is another kind of tokenizer, or has tokens beyond its model's.
    """
    values = read_json(path)
    model = values.get("model", {})
    if not isinstance(model, dict) or model.get("type", kind) != kind:
        raise ValueError(f"Tokenizer: {path} must be of type {kind}.")
    vocab = checked_vocabulary(path, model.get("vocab"))
    added = [token["content"] for token in values.get("added_tokens", [])]
    if unknown := sorted(set(added) - set(vocab)):
        raise ValueError(
            f"Tokenizer: {path} adds the token {unknown[0]!r} to its vocabulary, which "
            "this version does not do."
        )
    return model


def checked_vocabulary(path: pathlib.Path, vocab: Any) -> dict[str, int]:
    """A vocabulary itself, if it is one: tokens to ids from 0 on.

    Raises:
      ValueError: naming the file that it is from.
    """
    if (
        not isinstance(vocab, dict)
        or not vocab
        or not all(isinstance(i, int) and 0 <= i < 2**31 for i in vocab.values())
    ):
        raise ValueError(f"Tokenizer: {path} must hold a vocabulary, tokens to ids.")
    return vocab


def token_ids(path: str, backend: Any, tokens: Sequence[str]) -> list[int]:
    """The ids of special tokens, which are told to the library.

    Their text in a prompt becomes the token, as in transformers.

    Raises:
      ValueError: for one that the vocabulary lacks.
    """
    special = library().AddedToken
    for token in tokens:
        if backend.token_to_id(token) is None:
            raise ValueError(
                f"Tokenizer: the vocabulary {path} lacks the token {token!r}; this is "
                "another model's."
            )
    backend.add_special_tokens(
        [special(token, special=True, normalized=False) for token in tokens]
    )
    return [backend.token_to_id(token) for token in tokens]


def encode(
    backend: Any,
    prompts: Sequence[str],
    length: int,
    ends: tuple[int, int],
    pad: int,
    *,
    truncate: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of prompts between a first and a last token, as `Tokenizer.encode` has them.

    Args:
      backend: a `tokenizers.Tokenizer`.
      prompts: B strings.
      length: L, with both ends, at least 2.
      ends: the ids before and after each prompt.
      pad: the id after the end.
      truncate: cut longer prompts instead of raising.
    """
    if length < 2:
        raise ValueError(
            f"Tokenizer: length must be >= 2, for the first and the last token, got "
            f"{length}."
        )
    texts = list(tokenizer.checked(prompts, length))
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Tokenizer: the prompt {text!r} is not valid Unicode."
            ) from error
    rows = [e.ids for e in backend.encode_batch(texts, add_special_tokens=False)]
    sizes = np.array([len(row) for row in rows], np.int64)
    tokenizer.check_lengths(prompts, sizes, length - 2, truncate)
    ids = np.full((len(rows), length), pad, np.int32)
    for row, pieces in zip(ids, rows, strict=True):
        framed = [ends[0], *pieces[: length - 2], ends[1]]
        row[: len(framed)] = framed
    return ids, np.arange(length)[None, :] < np.minimum(sizes + 2, length)[:, None]


def decode(backend: Any, ids: np.ndarray, ends: tuple[int, int]) -> list[str]:
    """Texts of ids [B, L], each up to its last token; unknown ids are left out."""
    size = vocab_size(backend)
    texts = []
    for row in np.asarray(ids):
        row = row[: tokenizer.end(row, ends[1])]
        known = [int(i) for i in row if 0 <= i < size and i != ends[0]]
        texts.append(backend.decode(known, skip_special_tokens=False))
    return texts


def vocab_size(backend: Any) -> int:
    """Rows that the embedding table needs."""
    return max(backend.get_vocab().values()) + 1
