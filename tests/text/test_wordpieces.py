import pathlib

import numpy as np
import pytest

from imagen_jax.text import wordpieces
from tests.golden import prompts

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "bert"
PROMPTS = list(prompts.PROMPTS)
LENGTH = 60


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("uncased", {}),
        ("cased", {"lowercase": False}),
        ("accents", {"strip_accents": False}),
        ("unsplit", {"lowercase": False, "split_chinese": False}),
    ],
)
@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
def test_ids_are_those_of_transformers(name, settings, file):
    # tests/golden/make_bert.py says how the file was made.
    expected = np.load(FOLDER / "expected.npz")
    pieces = wordpieces.WordPieceTokenizer(str(FOLDER / file), **settings)
    ids, mask = pieces.encode(PROMPTS, LENGTH, truncate=True)
    np.testing.assert_array_equal(ids, expected[f"{name}/ids"])
    np.testing.assert_array_equal(mask, expected[f"{name}/mask"])


def test_a_long_prompt_is_cut_before_the_last_token():
    expected = np.load(FOLDER / "expected.npz")["uncased/ids"]
    pieces = wordpieces.WordPieceTokenizer(str(FOLDER / "vocab.txt"))
    ids, mask = pieces.encode(PROMPTS, 10, truncate=True)
    long = mask.all(1)
    assert long.sum() >= 20
    np.testing.assert_array_equal(ids[long, :9], expected[long, :9])
    assert (ids[long, 9] == pieces._backend.token_to_id("[SEP]")).all()
    with pytest.raises(ValueError, match="a prompt may have 8 tokens"):
        pieces.encode(PROMPTS, 10)


def test_the_settings_make_a_difference():
    expected = np.load(FOLDER / "expected.npz")
    ids = [expected[f"{n}/ids"] for n in ("uncased", "cased", "accents", "unsplit")]
    assert all((a != b).any() for i, a in enumerate(ids) for b in ids[:i])


def test_decoding_gives_words_back_up_to_the_last_token():
    pieces = wordpieces.WordPieceTokenizer(str(FOLDER / "vocab.txt"))
    ids, _ = pieces.encode(["The small red Cube, left of it"], LENGTH)
    assert pieces.decode(ids) == ["the small red cube, left of it"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\nb\n", r"lacks the token '\[CLS\]'"),
        ("", r"lacks the token '\[CLS\]'"),
    ],
)
def test_another_vocabulary_is_refused(tmp_path, lines, message):
    (tmp_path / "vocab.txt").write_text(lines)
    with pytest.raises(ValueError, match=message):
        wordpieces.WordPieceTokenizer(str(tmp_path / "vocab.txt"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*vocab.txt"):
        wordpieces.WordPieceTokenizer(str(tmp_path / "vocab.txt"))
