import json
import pathlib

import ml_collections
import numpy as np
import pytest

from imagen_jax import build
from imagen_jax.text import cleaning, tokenizer

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "cleaning.json"
ROWS = json.loads(GOLDEN.read_text())["rows"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["caption"][:20])
def test_captions_are_cleaned_as_by_diffusers(row):
    # tests/golden/make_cleaning.py says how the file was made.
    if row["ftfy"]:
        pytest.skip("ftfy, which this package does not call, changes it")
    assert cleaning.deepfloyd(row["caption"]) == row["cleaned"]


def test_few_captions_need_ftfy():
    assert len(ROWS) >= 50
    assert sum(row["ftfy"] for row in ROWS) <= 12


def test_a_second_pass_finds_what_the_first_uncovers():
    link = "https%253A%252F%252Fexample.com%252Fa boat"
    assert "example" not in cleaning.deepfloyd(link)


def test_accents_are_composed():
    assert cleaning.deepfloyd("e\u0301te\u0301") == "\u00e9t\u00e9"


def test_a_cleaning_tokenizer_reads_the_cleaned_prompts():
    plain = tokenizer.ByteTokenizer()
    cleaned = cleaning.Cleaned(plain)
    got = cleaned.encode(["A <b>Red</b> Circle!", ""], 20)
    for ours, theirs in zip(got, plain.encode(["a red circle!", ""], 20), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert cleaned.vocab_size == 384 and cleaned.decode(got[0])[0] == "a red circle!"
    for bad in ("a string", [3]):
        with pytest.raises(ValueError, match="Tokenizer: prompts must be"):
            cleaned.encode(bad, 20)


def test_config_says_how_prompts_are_cleaned():
    def made(**changes):
        text = {"tokenizer": "bytes", "sentencepiece": "", **changes}
        return build.make_tokenizer(ml_collections.ConfigDict({"text": text}))

    assert made() == made(cleaning="") == tokenizer.ByteTokenizer()
    assert made(cleaning="deepfloyd") == cleaning.Cleaned(tokenizer.ByteTokenizer())
    with pytest.raises(ValueError, match=r"cleaning: must be .* got 'soap'"):
        made(cleaning="soap")
