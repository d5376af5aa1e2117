"""The tokenizer that a config group `text` describes, and its files."""

import pathlib
from typing import Any, TypeAlias

from imagen_jax import constructing
from imagen_jax.text import cleaning, clip_pieces, tokenizer, wordpieces

# Those that `tokenizer_file` and `tokenizer_options` describe.
OTHERS = {
    "clip": clip_pieces.ClipTokenizer,
    "bert": wordpieces.WordPieceTokenizer,
}
Config: TypeAlias = Any


def make(text: Config) -> tokenizer.Tokenizer:
    """The tokenizer of `config.text`, cleaning prompts first where it says so."""
    # Older models do not say.
    return cleaning.cleaned(_plain(text), text.get("cleaning", ""))


def _plain(text: Config) -> tokenizer.Tokenizer:
    """The tokenizer of prompts as they are."""
    if text.tokenizer == "bytes":
        return tokenizer.ByteTokenizer()
    if text.tokenizer == "sentencepiece":
        if not text.sentencepiece:
            raise ValueError(
                "config.text.sentencepiece: the path of a SentencePiece model is "
                "required, or 'captions' for the shipped one, got ''. T5's is "
                "spiece.model in its Hugging Face folder."
            )
        path = pieces_path(text.sentencepiece)
        extra = text.get("extra_ids", 0)
        return tokenizer.SentencePieceTokenizer(path, extra)
    if text.tokenizer in OTHERS:
        if not text.get("tokenizer_file", ""):
            raise ValueError(
                "config.text.tokenizer_file: required, got ''. Give the path of "
                "vocab.json (CLIP, merges.txt beside it), vocab.txt (BERT) or "
                "tokenizer.json from the model's Hugging Face folder."
            )
        options = dict(text.get("tokenizer_options", {}))
        return constructing.construct(
            OTHERS[text.tokenizer],
            "text.tokenizer_options",
            {"path": text.tokenizer_file, **options},
        )
    kinds = ["bytes", "sentencepiece", *OTHERS]
    raise ValueError(
        f"config.text.tokenizer: must be one of {kinds}, got {text.tokenizer!r}."
    )


def files(text: Config) -> list[pathlib.Path]:
    """The files that the tokenizer of `config.text` reads, the one it names first."""
    if text.tokenizer == "sentencepiece":
        return [pathlib.Path(pieces_path(text.sentencepiece))]
    if text.tokenizer in OTHERS:
        file = pathlib.Path(text.tokenizer_file)
        merges = [file.with_name("merges.txt")] if file.name == "vocab.json" else []
        return [file, *merges]
    return []


def pieces_path(name: str) -> str:
    """The path of a SentencePiece model, given it or a shipped one's name."""
    shipped = tokenizer.ASSETS / f"{name}.model"
    return str(shipped) if shipped.is_file() else name
