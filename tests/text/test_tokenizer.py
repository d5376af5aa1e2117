import io
import json
import lzma
import pathlib
import re
import time

import numpy as np
import pytest
import sentencepiece

from imagen_jax.text import tokenizer

BYTES = tokenizer.ByteTokenizer()
TEXTS = ["a red circle", "", "ein grüner Würfel", "a 🍎 on a 木", "  two  spaces "]


GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TOKENS = json.loads((GOLDEN / "t5_tokens.json").read_text())


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red circle left of a blue square"] * 20),
        model_writer=model,
        vocab_size=30,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    path = tmp_path_factory.mktemp("sp") / "spiece.model"
    path.write_bytes(model.getvalue())
    return path


def test_ids_are_those_of_byt5():
    # transformers' ByT5Tokenizer gives "hé" -> [107, 198, 172, 1].
    ids, mask = BYTES.encode(["hé"], 6)
    np.testing.assert_array_equal(ids, [[107, 198, 172, 1, 0, 0]])
    np.testing.assert_array_equal(mask, [[True] * 4 + [False] * 2])
    assert ids.dtype == np.int32 and mask.dtype == bool
    assert BYTES.vocab_size == 384


def test_bytes_round_trip():
    ids, _ = BYTES.encode(TEXTS, 40)
    assert BYTES.decode(ids) == TEXTS


def test_a_batch_is_its_rows():
    ids, mask = BYTES.encode(TEXTS, 40)
    for row, text in enumerate(TEXTS):
        alone = BYTES.encode([text], 40)
        np.testing.assert_array_equal(ids[row], alone[0][0])
        np.testing.assert_array_equal(mask[row], alone[1][0])


def test_an_empty_prompt_is_eos_alone():
    ids, mask = BYTES.encode([""], 3)
    np.testing.assert_array_equal(ids, [[1, 0, 0]])
    np.testing.assert_array_equal(mask, [[True, False, False]])


def test_no_prompts_are_an_empty_batch():
    ids, mask = BYTES.encode([], 3)
    assert ids.shape == mask.shape == (0, 3)


def test_a_prompt_of_exactly_the_length_fits():
    ids, mask = BYTES.encode(["abc"], 4)
    assert mask.all() and ids[0, -1] == 1


def test_a_prompt_too_long_is_named():
    with pytest.raises(ValueError, match="may have 4 tokens, got 6 for 'sechs!'"):
        BYTES.encode(["ab", "sechs!"], 5)


def test_truncation_keeps_eos():
    ids, mask = BYTES.encode(["abcdef", "a"], 4, truncate=True)
    np.testing.assert_array_equal(ids, [[100, 101, 102, 1], [100, 1, 0, 0]])
    np.testing.assert_array_equal(mask.sum(1), [4, 2])
    assert BYTES.decode(BYTES.encode(["aü"], 3, truncate=True)[0]) == ["a\ufffd"]


@pytest.mark.parametrize(
    ("prompts", "length", "match"),
    [
        ("a string", 20, "list of strings"),
        ([3], 20, "must be strings"),
        (["\ud800"], 20, "not valid Unicode"),
        (["a"], 0, "length"),
    ],
)
def test_what_is_not_text_is_refused(prompts, length, match):
    with pytest.raises(ValueError, match=match):
        BYTES.encode(prompts, length)


def test_a_training_batch_costs_no_time():
    captions = ["a red circle left of a small blue square"] * 128
    BYTES.encode(captions, 80)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        BYTES.encode(captions, 80)
        times.append(time.perf_counter() - start)
    # 0.04 ms on a quiet core; the bound is for a busy machine.
    assert min(times) < 2e-3


def test_sentencepiece_adds_eos_and_round_trips(model_file):
    tok = tokenizer.SentencePieceTokenizer(str(model_file))
    texts = ["a red circle", "", "blue square left of a red circle"]
    ids, mask = tok.encode(texts, 40)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    assert ids[0, : mask[0].sum()].tolist() == [*reference.encode(texts[0]), 1]
    np.testing.assert_array_equal(ids[1], [1] + [0] * 39)
    assert (ids[~mask] == 0).all() and ids.dtype == np.int32
    assert tok.decode(ids) == texts
    assert tok.vocab_size == reference.vocab_size()


def test_sentencepiece_lengths_are_checked(model_file):
    tok = tokenizer.SentencePieceTokenizer(str(model_file))
    with pytest.raises(ValueError, match="may have 2 tokens"):
        tok.encode(["a red circle left of"], 3)
    ids, mask = tok.encode(["a red circle left of"], 3, truncate=True)
    assert mask.all() and ids[0, -1] == 1


def test_equal_sentencepiece_tokenizers_are_equal(model_file):
    one, two = (tokenizer.SentencePieceTokenizer(str(model_file)) for _ in range(2))
    assert one == two and hash(one) == hash(two)


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "text"])
def test_a_damaged_sentencepiece_file_is_a_clear_error(model_file, tmp_path, damage):
    whole = model_file.read_bytes()
    data = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "noise": np.random.default_rng(0).bytes(3000),
        "text": b"not a model\n" * 20,
    }[damage]
    path = tmp_path / "spiece.model"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"spiece\.model"):
        tokenizer.SentencePieceTokenizer(str(path))


def test_a_missing_sentencepiece_file_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="there is no SentencePiece model"):
        tokenizer.SentencePieceTokenizer(str(tmp_path / "none.model"))


@pytest.fixture(scope="module")
def t5_pieces(tmp_path_factory):
    path = tmp_path_factory.mktemp("t5") / "spiece.model"
    path.write_bytes(lzma.decompress((GOLDEN / "t5_pieces.model.xz").read_bytes()))
    return tokenizer.SentencePieceTokenizer(str(path), extra_ids=100)


MARK = re.compile(r"</s>|<pad>|<unk>|<extra_id_\d+>")


def assert_ids_are(tok, expected, kept=lambda prompt: True):
    # tests/golden/make_t5_tokens.py says how the file was made.
    rows = [i for i, prompt in enumerate(TOKENS["prompts"]) if kept(prompt)]
    prompts = [TOKENS["prompts"][i] for i in rows]
    whole, cut, mask = (
        [expected[k][i] for i in rows] for k in ("whole", "cut", "mask")
    )
    got, there = tok.encode(prompts, max(len(row) for row in whole))
    for prompt, row, some, wanted in zip(prompts, got, there, whole, strict=True):
        assert row[some].tolist() == wanted, prompt
    got, there = tok.encode(prompts, TOKENS["length"], truncate=True)
    assert got.tolist() == cut and there.tolist() == mask


def test_ids_are_those_of_transformers_t5(t5_pieces):
    assert len(TOKENS["prompts"]) > 40
    assert_ids_are(t5_pieces, TOKENS["t5"])


def test_ids_without_extra_ids_are_those_of_sentencepiece(t5_pieces):
    plain = tokenizer.SentencePieceTokenizer(t5_pieces.path)
    ids, mask = plain.encode(TOKENS["prompts"], 200)
    got = [row[some].tolist() for row, some in zip(ids, mask, strict=True)]
    assert got == TOKENS["t5_sentencepiece"]


def test_extra_ids_are_the_last_and_are_no_text(t5_pieces):
    last = t5_pieces.vocab_size - 1
    ids, _ = t5_pieces.encode(["<extra_id_0>", "<extra_id_99>", "<extra_id_100>"], 20)
    assert ids[:2, :2].tolist() == [[last, 1], [last - 99, 1]]
    assert last not in ids[2] and (ids[2] < last - 99).all()
    assert t5_pieces.decode(ids[:2]) == ["", ""]


def test_ids_are_those_of_transformers_byt5():
    # It reads marks as ids; here, as in seqio's ByteVocabulary, they are bytes too.
    assert_ids_are(BYTES, TOKENS["byt5"], lambda prompt: not MARK.search(prompt))
