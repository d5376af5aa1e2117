"""BERT's tokenizer: WordPiece (Devlin et al. 2018, section 3; Wu et al. 2016)."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from imagen_jax.text import framing

START = "[CLS]"
END = "[SEP]"
PAD = "[PAD]"
UNKNOWN = "[UNK]"
MASK = "[MASK]"


@dataclasses.dataclass(frozen=True)
class WordPieceTokenizer:
    """The word pieces of a BERT model's Hugging Face folder.

    Ids are those of transformers' BertTokenizer; the text of a special token in a
    prompt becomes that token.

    Attributes:
      path: of vocab.txt or of a tokenizer.json.
      lowercase: make texts lower-case first ("uncased" models).
      strip_accents: take accents away; None: if `lowercase`.
      split_chinese: make each Chinese character a word.

    Raises:
      ValueError: if the file is missing, or is none of BERT's.
    """

    path: str
    lowercase: bool = True
    strip_accents: bool | None = None
    split_chinese: bool = True

    def __post_init__(self) -> None:
        _ = self._ids

    @functools.cached_property
    def _backend(self) -> Any:
        lib = framing.library()
        model = lib.models.WordPiece(
            vocab=_vocabulary(pathlib.Path(self.path)), unk_token=UNKNOWN
        )
        backend = lib.Tokenizer(model)
        backend.normalizer = lib.normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=self.split_chinese,
            strip_accents=self.strip_accents,
            lowercase=self.lowercase,
        )
        backend.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
        backend.decoder = lib.decoders.WordPiece(prefix="##")
        return backend

    @functools.cached_property
    def _ids(self) -> list[int]:
        special = (START, END, PAD, UNKNOWN, MASK)
        return framing.token_ids(self.path, self._backend, special)

    @property
    def vocab_size(self) -> int:
        """Lines of the vocabulary; 30,522 in that of English uncased models."""
        return framing.vocab_size(self._backend)

    def encode(
        self, prompts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer.encode`; the first token is [CLS], the last [SEP]."""
        start, end, pad, *_ = self._ids
        return framing.encode(
            self._backend, prompts, length, (start, end), pad, truncate=truncate
        )

    def decode(self, ids: np.ndarray) -> list[str]:
        """See `Tokenizer.decode`; what the normaliser took away is gone."""
        return framing.decode(self._backend, ids, (self._ids[0], self._ids[1]))


def _vocabulary(path: pathlib.Path) -> dict[str, int]:
    if path.suffix == ".json":
        return framing.read_model(path, "WordPiece")["vocab"]
    lines = framing.read(path).removesuffix("\n").split("\n")
    return {line: number for number, line in enumerate(lines)}
