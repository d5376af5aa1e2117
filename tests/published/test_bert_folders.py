import json
import pathlib

import numpy as np
import pytest

from imagen_jax.checkpoints import safetensors, tensors
from imagen_jax.published import bert

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "bert"


def read(folder):
    part = bert.convert([str(folder)]).parts[0]
    return safetensors.flatten(
        tensors.transfer(part.tensors, part.table, part.shapes, unused=part.unused)
    )


def folder_with(path, arrays, *names):
    for name in ("config.json", "vocab.txt", *names):
        (path / name).write_bytes((FOLDER / name).read_bytes())
    safetensors.save(path / "model.safetensors", arrays)
    return path


def test_a_folder_becomes_a_text_group_and_its_files():
    model = bert.convert([str(FOLDER)])
    assert model.files == {"vocab.txt": str(FOLDER / "vocab.txt")}
    text = dict(model.text)
    assert text["tokenizer"] == "bert" and text["tokenizer_file"] == "vocab.txt"
    assert text["length"] == 32  # of 128, as many as there are positions
    assert json.loads(json.dumps(text)) == text
    assert text["encoder"] == {
        "type": "bert",
        "vocab_size": text["encoder"]["vocab_size"],
        "d_model": 24,
        "num_layers": 3,
        "num_heads": 3,
        "d_ff": 40,
        "max_length": 32,
        "segments": 2,
        "activation": "gelu",
        "epsilon": 1e-12,
        "dtype": "float32",
    }


def test_a_checkpoint_of_the_pretraining_gives_the_same(tmp_path):
    """With the prefix, the old names of norms, heads and numbers, as on the hub."""
    arrays, _ = safetensors.load(FOLDER / "model.safetensors")
    renamed = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in arrays.items()
    }
    renamed["cls.predictions.bias"] = np.zeros(9, np.float32)
    renamed["cls.seq_relationship.weight"] = np.zeros((2, 24), np.float32)
    renamed["bert.embeddings.position_ids"] = np.arange(32)[None]
    got, expected = read(folder_with(tmp_path, renamed)), read(FOLDER)
    assert got.keys() == expected.keys()
    for name, array in got.items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_tensor_too_many_is_an_error(tmp_path):
    arrays, _ = safetensors.load(FOLDER / "model.safetensors")
    arrays["encoder.layer.3.output.dense.bias"] = np.zeros(24, np.float32)
    with pytest.raises(ValueError, match=r"layer.3.output.dense.bias has no place"):
        read(folder_with(tmp_path, arrays))


def test_the_tokenizers_settings_are_read(tmp_path):
    arrays, _ = safetensors.load(FOLDER / "model.safetensors")
    folder = folder_with(tmp_path, arrays)
    assert bert.convert([str(folder)]).text["tokenizer_options"] == {
        "lowercase": True,
        "strip_accents": None,
        "split_chinese": True,
    }
    settings = {
        "do_lower_case": False,
        "strip_accents": True,
        "tokenize_chinese_chars": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert bert.convert([str(folder)]).text["tokenizer_options"] == {
        "lowercase": False,
        "strip_accents": True,
        "split_chinese": False,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type must be 'bert', got 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "must be 'absolute'"),
        ({"is_decoder": True}, "is_decoder must be False"),
        ({"hidden_size": 24.5}, "hidden_size must be int, got 24.5"),
    ],
)
def test_another_network_is_refused(change, message):
    with pytest.raises(ValueError, match=f"here: the config's .*{message}"):
        bert.text_module({"model_type": "bert", **change}, "here")
