"""Make t5_tokens.json and t5_pieces.model.xz: ids by transformers' T5 tokenizers.

Not run by the tests. In an environment of its own:

    pip install transformers==5.24.0 sentencepiece==0.2.3 tokenizers protobuf
    python tests/golden/make_t5_tokens.py

The pieces are few, of the kind and with the normalisation of T5's (unigram, nmt_nfkc,
pad 0, eos 1, unk 2, 100 extra ids after them). Recorded for each prompt: the ids, and
the ids cut and padded to `LENGTH`. `t5_sentencepiece` holds what the SentencePiece
library itself gives, with eos.
"""

import importlib.metadata
import io
import json
import lzma
import pathlib
import tempfile

import sentencepiece
import transformers

HERE = pathlib.Path(__file__).parent
LENGTH = 12
SENTENCES = """a red circle left of a blue square on a white ground
a photograph of an astronaut riding a horse, in the style of Vermeer
The quick brown fox jumps over the lazy dog. It was 25 degrees outside!
ein grüner Würfel auf einem Tisch, daneben eine Tasse Kaffee
un chat noir dort près de la fenêtre; l'été est déjà là
two dogs and three cats are playing with 12345 small balls (all of them yellow)
"Imagen" writes this text on a sign: hello world, 3/4 of it
oil painting of mountains, rivers and forests at sunset - very detailed
""".splitlines()
PROMPTS = [
    "a red circle",
    "",
    " ",
    "a",
    "A Red Circle LEFT of a Blue Square",
    "  two  leading and  double   spaces ",
    "tab\tand\nnewline\r\nends",
    "trailing newline\n",
    "no-break\u00a0space and thin\u2009space",
    "zero\u200bwidth and soft\u00adhyphen",
    "ﬁne ﬂowers: ligatures",
    "ＦＵＬＬ　ＷＩＤＴＨ １２３",
    "① ② ③ ½ ¼ ™ ℃ №",
    "e\u0301te\u0301 decomposed, été composed",
    "l'été à la plage: où êtes-vous ?",
    "ein grüner Würfel, größer als ß",
    "Привет мир",
    "木の上の赤い円",
    "한국어 문장",
    "مرحبا بالعالم",
    "a 🍎 on a 🌳",
    "👩‍👩‍👧 family and 🏳️‍🌈 flag",
    "x² + y² = z²",
    "price: $3.99 (20% off!) #sale @shop",
    "snake_case and kebab-case and CamelCase",
    "\"quoted\" 'single' “curly” ‘curly’ «angles»",
    "dash - en – em — minus −",
    "dots... and more… dots",
    "http://example.com/a?b=c&d=e",
    "a/b\\c|d~e^f`g",
    "Supercalifragilisticexpialidocious",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "0123456789 1,000,000 3.14159",
    "a very long prompt " * 10,
    "ʻokina and ñandú and Ångström and Åse",
    "▁ a lower one eighth block ▁",
    "\ufeffbyte order mark",
    "control \x07 bell and \x1b escape",
    "Hello <extra_id_0> world <extra_id_1>.",
    "<extra_id_99>",
    "a<extra_id_5>b",
    "<extra_id_100> is one too many, <extra_id_00> is none",
    "end </s> in the middle",
    "a <pad> b <unk> c",
    "</s>",
    "< extra_id_0 > with spaces",
]


def train() -> bytes:
    """A small SentencePiece model laid out as T5's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=model,
        vocab_size=220,
        hard_vocab_limit=False,
        character_coverage=0.9995,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def ids_of(tokenizer) -> dict:
    """What a tokenizer makes of the prompts."""
    cut = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=LENGTH)
    return {
        "whole": tokenizer(PROMPTS)["input_ids"],
        "cut": cut["input_ids"],
        "mask": cut["attention_mask"],
        "class": type(tokenizer).__name__,
    }


if __name__ == "__main__":
    model = train()
    (HERE / "t5_pieces.model.xz").write_bytes(lzma.compress(model, preset=9))
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "spiece.model").write_bytes(model)
        found = {
            "t5": ids_of(transformers.T5Tokenizer.from_pretrained(folder)),
            "t5_fast": ids_of(transformers.T5TokenizerFast.from_pretrained(folder)),
            "byt5": ids_of(transformers.ByT5Tokenizer()),
        }
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    found["t5_sentencepiece"] = [[*row, 1] for row in pieces.encode(PROMPTS)]
    libraries = ("transformers", "sentencepiece", "tokenizers")
    made_with = {name: importlib.metadata.version(name) for name in libraries}
    (HERE / "t5_tokens.json").write_text(
        json.dumps(
            {"made_with": made_with, "prompts": PROMPTS, "length": LENGTH} | found,
            ensure_ascii=True,
        )
        + "\n"
    )
