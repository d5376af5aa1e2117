"""CLIP's tokenizer: byte pairs of lower-case text (Radford et al. 2021, 2.4)."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagen_jax.text import framing

START = "<|startoftext|>"
END = "<|endoftext|>"
# End of a word, a part of its last piece.
SUFFIX = "</w>"
# What is a word: endings of English, runs of letters, single digits, runs of the rest.
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|"
    r"[^\s\p{L}\p{N}]+"
)


@dataclasses.dataclass(frozen=True)
class ClipTokenizer:
    """The byte pairs of a CLIP model's Hugging Face folder.

    Ids are those of transformers' CLIPTokenizer, in all their particulars: the text of
    a special token in a prompt becomes that token, so that where "!" is the padding,
    "hi!" ends in padding's id.

    Attributes:
      path: of vocab.json, with merges.txt beside it, or of a tokenizer.json.
      pad: the token after the end: "<|endoftext|>" in OpenAI's models, "!" (id 0) in
        OpenCLIP's as Stable Diffusion 2 has them.

    Raises:
      ValueError: if a file is missing, or is none of CLIP's.
    """

    path: str
    pad: str = END

    def __post_init__(self) -> None:
        _ = self._ids

    @functools.cached_property
    def _backend(self) -> Any:
        lib = framing.library()
        vocab, merges = _pieces(pathlib.Path(self.path))
        try:
            model = lib.models.BPE(
                vocab=vocab,
                merges=merges,
                continuing_subword_prefix="",
                end_of_word_suffix=SUFFIX,
                unk_token=END,
            )
        except Exception as error:  # the library has no class of its own
            raise ValueError(
                f"Tokenizer: {self.path} and its merges do not fit ({error})."
            ) from error
        backend = lib.Tokenizer(model)
        norm, split = lib.normalizers, lib.pre_tokenizers
        backend.normalizer = norm.Sequence(
            [norm.NFC(), norm.Replace(lib.Regex(r"\s+"), " "), norm.Lowercase()]
        )
        words = split.Split(lib.Regex(WORDS), behavior="removed", invert=True)
        backend.pre_tokenizer = split.Sequence(
            [words, split.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = lib.decoders.ByteLevel()
        return backend

    @functools.cached_property
    def _ids(self) -> list[int]:
        return framing.token_ids(self.path, self._backend, (START, END, self.pad))

    @property
    def vocab_size(self) -> int:
        """Byte pairs and special tokens; 49,408 in OpenAI's vocabulary."""
        return framing.vocab_size(self._backend)

    def encode(
        self, prompts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer.encode`; the first token is the start's."""
        start, end, pad = self._ids
        return framing.encode(
            self._backend, prompts, length, (start, end), pad, truncate=truncate
        )

    def decode(self, ids: np.ndarray) -> list[str]:
        """See `Tokenizer.decode`; a space stands after each word."""
        texts = framing.decode(self._backend, ids, (self._ids[0], self._ids[1]))
        return [text.replace(SUFFIX, " ").strip() for text in texts]


def _pieces(path: pathlib.Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges, best first."""
    if path.name != "vocab.json":
        model = framing.read_model(path, "BPE")
        vocab, lines = model["vocab"], model.get("merges", [])
    else:
        vocab = framing.checked_vocabulary(path, framing.read_json(path))
        merges = framing.read(path.with_name("merges.txt")).split("\n")
        lines = [line for line in merges if line and not line.startswith("#version")]
    pairs = [line.split(" ") if isinstance(line, str) else line for line in lines]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(
            f"Tokenizer: a merge of {path} must be two pieces, got {bad[0]}."
        )
    return vocab, [(left, right) for left, right in pairs]
