"""Make clip/: a tiny random CLIP of transformers as its folder, with its results.

Not run by the tests. In an environment of its own:

    pip install torch==2.14.1 transformers==5.24.0 && python tests/golden/make_clip.py

The folder holds config.json (OpenAI's: quick_gelu, an eos id of 2) and, for the same
weights, config_openclip.json (gelu, eos by its id), the tokenizer as vocab.json and
merges.txt and as tokenizer.json, and expected.npz with transformers' results.
"""

import json
import pathlib
import shutil
import tempfile

import numpy as np
import PIL.Image
import prompts
import tokenizers
import torch
import transformers

FOLDER = pathlib.Path(__file__).with_name("clip")
LENGTH = 24
TOKENS = 60  # of the recorded prompts; only few are longer
MERGES = 120
ROWS = [0, 2, 3, 16, 24]  # the prompts that the model gets
START, END = "<|startoftext|>", "<|endoftext|>"
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": LENGTH,
    "bos_token_id": 632,
    "pad_token_id": 633,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 8,
}
KINDS = {
    "openai": {"hidden_act": "quick_gelu", "eos": 2},
    "openclip": {"hidden_act": "gelu", "eos": 633},
}


def byte_characters() -> list[str]:
    """The characters of the 256 bytes in OpenAI's order: "!" is the first."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]


def make_tokenizer() -> None:
    """Train byte pairs and write them as CLIP's folders have them."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    reference = transformers.CLIPTokenizer().backend_tokenizer
    trained.normalizer = reference.normalizer
    trained.pre_tokenizer = reference.pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=512 + MERGES, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(prompts.CORPUS, trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    merges = merges[:MERGES]
    letters = byte_characters()
    pieces = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges]
    vocab = {piece: i for i, piece in enumerate([*pieces, START, END])}
    assert len(vocab) == 512 + MERGES + 2 and vocab["!"] == 0, len(vocab)
    text = json.dumps(vocab, ensure_ascii=False)
    (FOLDER / "vocab.json").write_text(text, encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (FOLDER / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def tokenizer_arrays() -> dict[str, np.ndarray]:
    """Ids and masks of the prompts with either padding; writes tokenizer.json too."""
    arrays = {}
    for name, pad in (("eos", END), ("first", "!")):
        with tempfile.TemporaryDirectory() as folder:
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(FOLDER / file, folder)
            tokenizer = transformers.CLIPTokenizer.from_pretrained(
                folder, pad_token=pad
            )
        out = tokenizer(
            list(prompts.PROMPTS),
            padding="max_length",
            max_length=TOKENS,
            truncation=True,
            return_tensors="np",
        )
        arrays[f"pad_{name}/ids"] = out["input_ids"].astype(np.int16)
        arrays[f"pad_{name}/mask"] = out["attention_mask"].astype(bool)
        if name == "eos":
            arrays["decoded"] = np.array(
                [
                    tokenizer.decode(i, skip_special_tokens=True)
                    for i in out["input_ids"]
                ]
            )
            with tempfile.TemporaryDirectory() as folder:
                tokenizer.save_pretrained(folder)
                for file in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(pathlib.Path(folder) / file, FOLDER / file)
    return arrays


def configs(kind: str) -> transformers.CLIPConfig:
    """The config of one kind of model."""
    activation, eos = KINDS[kind]["hidden_act"], KINDS[kind]["eos"]
    vocab = 512 + MERGES + 2
    return transformers.CLIPConfig(
        text_config=TEXT
        | {"vocab_size": vocab, "hidden_act": activation, "eos_token_id": eos},
        vision_config=VISION | {"hidden_act": activation},
        projection_dim=20,
    )


def randomise(model: torch.nn.Module) -> None:
    """Weights of which each matters: norms away from one, biases from zero."""
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" in key and key.endswith("weight"):
                weight.uniform_(0.5, 1.5)
            elif key.endswith("bias"):
                weight.normal_(0, 0.3)
            elif "embedding" in key:
                weight.normal_(0, 0.5)
            elif weight.ndim == 2:
                weight.normal_(0, weight.shape[1] ** -0.5)


def model_arrays(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Both kinds' results on some of the prompts and on random pictures."""
    torch.manual_seed(0)
    images = torch.randn(3, 3, 24, 24)
    arrays = {"images": images.permute(0, 2, 3, 1).numpy()}
    first = transformers.CLIPModel(configs("openai")).eval()
    randomise(first)
    first.save_pretrained(FOLDER)
    for kind in KINDS:
        model = transformers.CLIPModel(configs(kind)).eval()
        model.load_state_dict(first.state_dict())
        if kind != "openai":
            with tempfile.TemporaryDirectory() as folder:
                model.config.save_pretrained(folder)
                source = pathlib.Path(folder) / "config.json"
                shutil.copy(source, FOLDER / f"config_{kind}.json")
        inputs = {
            "input_ids": torch.tensor(ids.astype(np.int64)),
            "attention_mask": torch.tensor(mask.astype(np.int64)),
        }
        with torch.no_grad():
            text = model.text_model(**inputs, output_hidden_states=True)
            penultimate = text.hidden_states[-2]
            results = {
                "last": text.last_hidden_state,
                "penultimate": penultimate,
                "penultimate_normed": model.text_model.final_layer_norm(penultimate),
                "pooled": text.pooler_output,
                "text": model.get_text_features(**inputs).pooler_output,
                "image": model.get_image_features(images).pooler_output,
                "unmasked": model.text_model(inputs["input_ids"]).last_hidden_state,
            }
        arrays |= {f"{kind}/{k}": v.numpy() for k, v in results.items()}
    return arrays


def picture_arrays() -> dict[str, np.ndarray]:
    """What transformers makes of pictures of several shapes before the tower."""
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    )
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        source = pathlib.Path(folder) / "preprocessor_config.json"
        shutil.copy(source, FOLDER / source.name)
    rng = np.random.default_rng(0)
    arrays = {}
    for name, (height, width) in {"tall": (61, 40), "small": (17, 19)}.items():
        # Coarse blocks: edges that overshoot under a bicubic filter.
        blocks = rng.integers(0, 256, (-(-height // 5), -(-width // 5), 3), np.uint8)
        picture = blocks.repeat(5, 0).repeat(5, 1)[:height, :width]
        out = processor(PIL.Image.fromarray(picture), return_tensors="np")
        arrays[f"{name}/picture"] = picture
        arrays[f"{name}/pixels"] = np.asarray(out["pixel_values"])[0].transpose(1, 2, 0)
    return arrays


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    make_tokenizer()
    arrays = tokenizer_arrays()
    ids, mask = (arrays[f"pad_eos/{n}"][ROWS, :LENGTH] for n in ("ids", "mask"))
    assert mask.sum(1).min() == 2
    arrays |= {"ids": ids, "mask": mask} | model_arrays(ids, mask) | picture_arrays()
    arrays["made_with"] = np.array(
        f"transformers {transformers.__version__}, tokenizers "
        f"{tokenizers.__version__}, torch {torch.__version__}"
    )
    np.savez_compressed(FOLDER / "expected.npz", **arrays)
