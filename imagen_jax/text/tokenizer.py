"""Strings to ids and back: bytes without any file, SentencePiece from a user's file."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

PAD = 0
EOS = 1
UNK = 2

ASSETS = pathlib.Path(__file__).parent / "assets"


def words(text: str) -> list[str]:
    """Split a text into words: runs of letters and digits, in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


class Tokenizer(Protocol):
    """What the rest of the package asks of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Rows that the embedding table needs."""
        ...

    def encode(
        self, prompts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of prompts, each ended by eos and padded.

        CLIP's and BERT's have a first token too, and a padding id of their own.

        Args:
          prompts: B strings; an empty one becomes its first token, if any, and eos.
          length: L, tokens a prompt may have, eos included.
          truncate: cut longer prompts instead of raising.

        Returns:
          (ids int32 [B, L], mask bool [B, L]), mask True at tokens and eos.

        Raises:
          ValueError: for a prompt that does not fit, or is not text.
        """
        ...

    def decode(self, ids: np.ndarray) -> list[str]:
        """Texts of ids [B, L], each up to its eos."""
        ...


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """ByT5's vocabulary (Xue et al. 2021): UTF-8 bytes moved up by 3.

    Ids 0, 1, 2 are pad, eos and unk, 3..258 are bytes, and 125 extra ids up to 383 stay
    free for masks.
    """

    extra_ids: int = 125

    @property
    def vocab_size(self) -> int:
        """Bytes, three special ids and the extra ones: 384."""
        return 3 + 256 + self.extra_ids

    def encode(
        self, prompts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer.encode`."""
        texts = []
        for prompt in checked(prompts, length):
            try:
                texts.append(prompt.encode())
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"Tokenizer: the prompt {prompt!r} is not valid Unicode."
                ) from error
        sizes = np.array([len(text) for text in texts], np.int64)
        check_lengths(prompts, sizes, length - 1, truncate)
        if truncate:
            texts = [text[: length - 1] for text in texts]
            sizes = np.minimum(sizes, length - 1)
        places = np.arange(length)[None, :]
        ids = np.full((len(texts), length), PAD, np.int32)
        # Row by row, the places before each end are exactly the joined bytes.
        ids[places < sizes[:, None]] = (
            np.frombuffer(b"".join(texts), np.uint8).astype(np.int32) + 3
        )
        ids[np.arange(len(texts)), sizes] = EOS
        return ids, places <= sizes[:, None]

    def decode(self, ids: np.ndarray) -> list[str]:
        """See `Tokenizer.decode`; ids that are no bytes are left out."""
        texts = []
        for row in np.asarray(ids):
            row = row[: end(row, EOS)]
            row = row[(row >= 3) & (row < 259)] - 3
            texts.append(bytes(row.astype(np.uint8)).decode(errors="replace"))
        return texts


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
    """The subwords of a SentencePiece model file (T5's is `spiece.model`).

    Attributes:
      path: of the model file.
      extra_ids: ids after the file's pieces, T5's 100 marks of what was cut out in its
        training, the last one first. Where there are some, "<extra_id_0>", "</s>",
        "<pad>" and "<unk>" in a text are those ids, as transformers reads them.

    Raises:
      ValueError: if the file is missing or is no SentencePiece model with an
        end-of-sentence piece.
    """

    path: str
    extra_ids: int = 0

    def __post_init__(self) -> None:
        if self._processor.eos_id() < 0:
            raise ValueError(
                f"Tokenizer: the SentencePiece model {self.path} must define an "
                f"end-of-sentence piece; train it with --eos_id=1, as T5's."
            )

    @functools.cached_property
    def _processor(self) -> Any:
        import sentencepiece

        file = pathlib.Path(self.path)
        if not file.is_file():
            raise ValueError(
                f"Tokenizer: there is no SentencePiece model {self.path}. T5's is the "
                f"file spiece.model of its Hugging Face folder."
            )
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=file.read_bytes())
        except (RuntimeError, OSError) as error:
            raise ValueError(
                f"Tokenizer: {self.path} is not a SentencePiece model, or is damaged."
            ) from error

    @property
    def vocab_size(self) -> int:
        """Pieces in the file and extra ids; T5's tables are larger (32,128 rows)."""
        return self._processor.vocab_size() + self.extra_ids

    @functools.cached_property
    def _marks(self) -> dict[str, int]:
        last = self.vocab_size - 1
        extra = {f"<extra_id_{i}>": last - i for i in range(self.extra_ids)}
        return {"<pad>": PAD, "</s>": EOS, "<unk>": UNK, **extra}

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts without eos; each stretch between marks is a text of its own."""
        if not self.extra_ids:
            return self._processor.encode(list(texts))
        mark = re.compile(f"({'|'.join(map(re.escape, self._marks))})")
        rows = []
        for text in texts:
            parts = mark.split(text)
            row = list(self._processor.encode(parts[0]))
            for name, stretch in zip(parts[1::2], parts[2::2], strict=True):
                row += [self._marks[name], *self._processor.encode(stretch)]
            rows.append(row)
        return rows

    def encode(
        self, prompts: Sequence[str], length: int, *, truncate: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Tokenizer.encode`."""
        pieces = self._pieces(checked(prompts, length))
        sizes = np.array([len(row) for row in pieces], np.int64)
        check_lengths(prompts, sizes, length - 1, truncate)
        sizes = np.minimum(sizes, length - 1)
        ids = np.full((len(pieces), length), PAD, np.int32)
        for row, (some, size) in enumerate(zip(pieces, sizes, strict=True)):
            ids[row, :size] = some[:size]
            ids[row, size] = self._processor.eos_id()
        return ids, np.arange(length)[None, :] <= sizes[:, None]

    def decode(self, ids: np.ndarray) -> list[str]:
        """See `Tokenizer.decode`; ids past the file's pieces are left out."""
        pieces = self._processor.vocab_size()
        rows = [row[: end(row, self._processor.eos_id())] for row in np.asarray(ids)]
        return [
            self._processor.decode([int(i) for i in row if 0 < i < pieces])
            for row in rows
        ]


def end(row: np.ndarray, eos: int) -> int:
    """Where a row's first eos is, or its length."""
    at = np.flatnonzero(row == eos)
    return int(at[0]) if at.size else len(row)


def checked(prompts: Sequence[str], length: int) -> Sequence[str]:
    """The prompts themselves.

    Raises:
      ValueError: unless they are strings, and the length is positive.
    """
    if isinstance(prompts, str):
        raise ValueError(
            f"Tokenizer: prompts must be a list of strings, got the string {prompts!r}."
        )
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise ValueError(f"Tokenizer: prompts must be strings, got {prompt!r}.")
    if length < 1:
        raise ValueError(f"Tokenizer: length must be >= 1, got {length}.")
    return prompts


def check_lengths(
    prompts: Sequence[str], sizes: np.ndarray, most: int, truncate: bool
) -> None:
    """Raise a ValueError for a prompt of more than `most` tokens, unless it is cut."""
    if truncate or not (sizes > most).any():
        return
    worst = int(np.argmax(sizes))
    raise ValueError(
        f"Tokenizer: a prompt may have {most} tokens, got {sizes[worst]} for "
        f"{_short(prompts[worst])!r}. Shorten it."
    )


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
