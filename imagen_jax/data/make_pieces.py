"""Make the SentencePiece model of this package's own captions.

    python -m imagen_jax.data.make_pieces

Every word that a caption of the tasks can hold is one piece, plurals apart, which are
"dog" and "s". What no piece begins is one unknown piece, however long, so that a prompt
has about as many pieces as words. Capitals are folded. The file is committed; only
someone who changes the captions needs this script.
"""

import io
import itertools
import pathlib

import sentencepiece

from imagen_jax.data import emoji, emoji_words, shapes, sprites
from imagen_jax.text import tokenizer

SPACE = "\u2581"
ENDINGS = ("s", "es")


def words() -> list[str]:
    """All words of the captions, plurals in s and es left out."""
    templates = [
        *itertools.chain(*emoji_words.NUMBER_WORDS.values()),
        *itertools.chain(*emoji_words.RELATION_WORDS.values()),
        *itertools.chain(*emoji_words.SIZE_WORDS.values()),
        *emoji_words.BACKGROUND_WORDS,
        *emoji_words.FRAMES,
        *emoji_words.IRREGULAR.values(),
        *emoji.BACKGROUNDS,
        *shapes.COLORS,
        *shapes.SHAPES,
        *shapes.RELATIONS,
        "an",
    ]
    for name in sprites.names():
        templates.extend((name, *sprites.synonyms(name)))
    known = {word for word in " ".join(templates).split() if "{" not in word}
    plurals = {emoji_words.plural(word) for word in known}
    return sorted(known | {word for word in plurals if word.endswith("ies")})


def make(path: pathlib.Path) -> None:
    """Write the model file."""
    model = io.BytesIO()
    pieces = [*(SPACE + word for word in words()), *ENDINGS]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["."]),
        user_defined_symbols=pieces,
        model_writer=model,
        vocab_size=len(pieces) + 5,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=tokenizer.PAD,
        eos_id=tokenizer.EOS,
        unk_id=tokenizer.UNK,
        bos_id=-1,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())


if __name__ == "__main__":
    make(tokenizer.ASSETS / "captions.model")
