import json
import pathlib
import sys

import numpy as np
import pytest

from imagen_jax.text import clip_pieces
from tests.golden import prompts

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "clip"
PROMPTS = list(prompts.PROMPTS)
LENGTH = 60


@pytest.fixture(scope="module")
def expected():
    return np.load(FOLDER / "expected.npz")


@pytest.fixture(scope="module")
def pieces():
    return clip_pieces.ClipTokenizer(str(FOLDER / "vocab.json"))


@pytest.mark.parametrize("file", ["vocab.json", "tokenizer.json"])
@pytest.mark.parametrize(("name", "pad"), [("eos", "<|endoftext|>"), ("first", "!")])
def test_ids_are_those_of_transformers(expected, file, name, pad):
    # tests/golden/make_clip.py says how the file was made.
    tokenizer = clip_pieces.ClipTokenizer(str(FOLDER / file), pad)
    ids, mask = tokenizer.encode(PROMPTS, LENGTH, truncate=True)
    np.testing.assert_array_equal(ids, expected[f"pad_{name}/ids"])
    np.testing.assert_array_equal(mask, expected[f"pad_{name}/mask"])
    assert ids.dtype == np.int32 and mask.dtype == bool


def test_every_row_stands_between_start_and_end_which_the_mask_includes(pieces):
    ids, mask = pieces.encode(PROMPTS, LENGTH, truncate=True)
    sizes = mask.sum(1)
    start, end = pieces.vocab_size - 2, pieces.vocab_size - 1
    assert (ids[:, 0] == start).all()
    assert (ids[np.arange(len(ids)), sizes - 1] == end).all()
    assert sizes.min() == 2 and sizes.max() == LENGTH  # "", and what was cut
    assert (ids[~mask] == end).all()


def test_decoding_gives_lower_case_words_back(pieces, expected):
    ids, _ = pieces.encode(["A small  RED cube!"], LENGTH)
    assert pieces.decode(ids) == ["a small red cube !"]
    plain = [i for i, text in enumerate(PROMPTS) if "<|" not in text]
    ids, _ = pieces.encode(PROMPTS, LENGTH, truncate=True)
    got = pieces.decode(ids)
    assert [got[i] for i in plain] == [str(expected["decoded"][i]) for i in plain]


def test_decoding_leaves_out_ids_that_are_no_pieces(pieces):
    ids, _ = pieces.encode(["a cat"], 6)
    assert pieces.decode(np.append(ids, [[-1, 10**6]], 1)) == pieces.decode(ids)
    strange = np.array([[10**6, *ids[0, 1:3], -5]])
    assert pieces.decode(strange) == pieces.decode(ids[:, :3])


def test_a_prompt_that_does_not_fit_is_an_error_unless_cut(pieces):
    pieces.encode(["a red cube"], 10)
    size = int(pieces.encode(["a red cube"], 20)[1].sum())
    assert pieces.encode(["a red cube"], size)[1].all()
    with pytest.raises(ValueError, match=f"may have {size - 3} tokens, got {size - 2}"):
        pieces.encode(["a red cube"], size - 1)
    with pytest.raises(ValueError, match="length must be >= 2"):
        pieces.encode(["a"], 1)


def test_prompts_that_are_no_text_are_refused(pieces):
    with pytest.raises(ValueError, match="list of strings"):
        pieces.encode("a cat", 8)
    with pytest.raises(ValueError, match="not valid Unicode"):
        pieces.encode(["a \ud800 cat"], 8)


def test_no_prompts_give_no_rows(pieces):
    ids, mask = pieces.encode([], 8)
    assert ids.shape == mask.shape == (0, 8)


def test_an_unknown_padding_token_is_refused():
    with pytest.raises(ValueError, match="lacks the token '<nothing>'"):
        clip_pieces.ClipTokenizer(str(FOLDER / "vocab.json"), "<nothing>")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "merges.txt").unlink(), "there is no file .*merges.txt"),
        (lambda f: (f / "vocab.json").unlink(), "there is no file .*vocab.json"),
        (lambda f: (f / "vocab.json").write_text("{"), "vocab.json is damaged"),
        (lambda f: (f / "vocab.json").write_text("[1]"), "must hold a JSON object"),
        (lambda f: (f / "vocab.json").write_text('{"a": -1}'), "hold a vocabulary"),
        (lambda f: (f / "merges.txt").write_text("a b c\n"), "must be two pieces"),
        (lambda f: (f / "merges.txt").write_text("qq zz\n"), "merges do not fit"),
        (lambda f: (f / "vocab.json").write_bytes(b"\xff{}"), "vocab.json is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, change, message):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        clip_pieces.ClipTokenizer(str(tmp_path / "vocab.json"))


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    other = FOLDER.with_name("bert") / "tokenizer.json"
    with pytest.raises(ValueError, match="must be of type BPE"):
        clip_pieces.ClipTokenizer(str(other))
    values = json.loads((FOLDER / "tokenizer.json").read_text())
    values["added_tokens"].append({"id": 9999, "content": "<sks>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="adds the token '<sks>'"):
        clip_pieces.ClipTokenizer(str(tmp_path / "tokenizer.json"))


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'pip install "imagen_jax\[tokenizers\]"'):
        clip_pieces.ClipTokenizer(str(FOLDER / "vocab.json"))
