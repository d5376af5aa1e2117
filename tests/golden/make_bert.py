"""Make bert/: a tiny random BERT of transformers as its folder, with its results.

Not run by the tests. In an environment of its own:

    pip install torch==2.14.1 transformers==5.24.0 && python tests/golden/make_bert.py

Beside config.json and the weights the folder holds vocab.txt, tokenizer.json,
tokenizer_config.json and expected.npz with what transformers makes of it all.
"""

import pathlib
import shutil
import tempfile

import make_clip
import numpy as np
import prompts
import tokenizers
import torch
import transformers

FOLDER = pathlib.Path(__file__).with_name("bert")
LENGTH = 24
TOKENS = 60  # of the recorded prompts; only few are longer
ROWS = [0, 3, 15, 27]  # the prompts that the model gets
# Settings of the tokenizer by the names of transformers.
TOKENIZERS = {
    "uncased": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "accents": {"do_lower_case": True, "strip_accents": False},
    "unsplit": {"do_lower_case": False, "tokenize_chinese_chars": False},
}


def make_vocabulary() -> None:
    """Train word pieces and write vocab.txt."""
    trained = tokenizers.BertWordPieceTokenizer(lowercase=False)
    corpus = [*prompts.CORPUS, *(text.lower() for text in prompts.CORPUS)]
    trained.train_from_iterator(
        corpus, vocab_size=320, min_frequency=1, show_progress=False
    )
    trained.save_model(str(FOLDER))


def tokenizer_arrays() -> dict[str, np.ndarray]:
    """Ids and masks of the prompts with each setting; writes tokenizer.json too."""
    arrays = {}
    for name, settings in TOKENIZERS.items():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(FOLDER / "vocab.txt", folder)
            tokenizer = transformers.BertTokenizer.from_pretrained(folder, **settings)
            out = tokenizer(
                list(prompts.PROMPTS),
                padding="max_length",
                max_length=TOKENS,
                truncation=True,
                return_tensors="np",
            )
            arrays[f"{name}/ids"] = out["input_ids"].astype(np.int16)
            arrays[f"{name}/mask"] = out["attention_mask"].astype(bool)
            if name == "uncased":
                tokenizer.save_pretrained(folder)
                for file in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(pathlib.Path(folder) / file, FOLDER / file)
    return arrays


def model_arrays(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The encoder's result on some of the prompts; writes the model."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len((FOLDER / "vocab.txt").read_text().splitlines()),
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=3,
        max_position_embeddings=32,
    )
    model = transformers.BertModel(config).eval()
    make_clip.randomise(model)
    model.save_pretrained(FOLDER)
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(ids.astype(np.int64)),
            attention_mask=torch.tensor(mask.astype(np.int64)),
        )
    return {"last": out.last_hidden_state.numpy()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    make_vocabulary()
    arrays = tokenizer_arrays()
    ids, mask = (arrays[f"uncased/{n}"][ROWS, :LENGTH] for n in ("ids", "mask"))
    assert mask[-1].all() and mask.sum(1).min() == 2
    arrays |= {"ids": ids, "mask": mask} | model_arrays(ids, mask)
    arrays["made_with"] = np.array(
        f"transformers {transformers.__version__}, tokenizers "
        f"{tokenizers.__version__}, torch {torch.__version__}"
    )
    np.savez_compressed(FOLDER / "expected.npz", **arrays)
