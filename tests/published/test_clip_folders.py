import json
import pathlib

import jax
import numpy as np
import pytest

from imagen_jax.checkpoints import safetensors, tensors
from imagen_jax.published import clip, clip_pictures, folders

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "clip"
FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")


def copy(folder, *names):
    for name in names:
        (folder / name).write_bytes((FOLDER / name).read_bytes())


def rewritten(folder, **changes):
    config = json.loads((FOLDER / "config.json").read_text())
    for name, value in changes.items():
        config["text_config"][name] = value
    (folder / "config.json").write_text(json.dumps(config))


def read(folder, **options):
    part = clip.convert([str(folder)], **options).parts[0]
    return tensors.transfer(part.tensors, part.table, part.shapes, unused=part.unused)


def test_a_folder_becomes_a_text_group_its_files_and_a_table():
    model = clip.convert([str(FOLDER)], layer="penultimate", length=20)
    assert list(model.stages) == [] and model.notice == ""
    assert model.files == {
        name: str(FOLDER / name) for name in ("vocab.json", "merges.txt")
    }
    text = dict(model.text)
    assert text["tokenizer"] == "clip" and text["tokenizer_file"] == "vocab.json"
    assert text["tokenizer_options"] == {"pad": "<|endoftext|>"}
    assert text["length"] == 20
    assert json.loads(json.dumps(text)) == text
    assert text["encoder"] == {
        "type": "clip",
        "vocab_size": 634,
        "d_model": 24,
        "num_layers": 3,
        "num_heads": 3,
        "d_ff": 40,
        "max_length": 24,
        "activation": "quick_gelu",
        "epsilon": 1e-5,
        "layer": "penultimate",
        "final_norm": True,
        "dtype": "float32",
    }
    (part,) = model.parts
    tensors.check(part.tensors, part.table, part.shapes, part.unused)


def test_a_tower_alone_is_read_with_or_without_its_prefix(tmp_path):
    """As transformers 4 and 5 save the text encoder of Stable Diffusion."""
    arrays, _ = safetensors.load(FOLDER / "model.safetensors")
    text = {k: v for k, v in arrays.items() if k.startswith("text_model.")}
    text["text_model.embeddings.position_ids"] = np.arange(24)[None]
    config = json.loads((FOLDER / "config.json").read_text())["text_config"]
    config["model_type"] = "clip_text_model"
    expected = safetensors.flatten(read(FOLDER))
    for prefix in ("text_model.", ""):
        folder = tmp_path / f"folder{prefix}"
        folder.mkdir()
        copy(folder, "vocab.json", "merges.txt")
        (folder / "config.json").write_text(json.dumps(config))
        renamed = {prefix + k.removeprefix("text_model."): v for k, v in text.items()}
        safetensors.save(folder / "model.safetensors", renamed)
        got = safetensors.flatten(read(folder))
        assert got.keys() == expected.keys()
        for name, array in got.items():
            np.testing.assert_array_equal(array, expected[name])


def test_a_tensor_of_no_tower_is_an_error(tmp_path):
    copy(tmp_path, *FILES)
    arrays, _ = safetensors.load(FOLDER / "model.safetensors")
    extra = {"text_model.encoder.layers.3.mlp.fc1.bias": np.zeros(40, np.float32)}
    safetensors.save(tmp_path / "model.safetensors", arrays | extra)
    with pytest.raises(ValueError, match=r"layers.3.mlp.fc1.bias has no place"):
        read(tmp_path)
    del arrays["text_model.final_layer_norm.bias"]
    safetensors.save(tmp_path / "model.safetensors", arrays)
    with pytest.raises(ValueError, match=r"final_layer_norm.bias is missing"):
        read(tmp_path)


def test_values_that_a_config_omits_are_those_of_transformers():
    module = clip.text_tower({"model_type": "clip"})
    assert module.projection == 512 and module.eos_id == 49407
    assert module.text.d_model == 512 and module.text.activation == "quick_gelu"
    image = clip.image_tower({"model_type": "clip"})
    assert (image.image_size, image.patch_size, image.d_model) == (224, 32, 768)
    side = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    shapes = folders.shapes(image.clone(num_layers=1), side)
    sizes = {
        name: sum(a.size for a in jax.tree.leaves(t)) for name, t in shapes.items()
    }
    layer = sizes.pop("layers_0")
    # OpenAI's ViT-B/32: 87,456,000 in the tower and 393,216 in its projection.
    assert sum(sizes.values()) + image.num_layers * layer == 87_456_000 + 393_216


def test_old_configs_say_their_values_twice():
    twice = {
        "model_type": "clip",
        "projection_dim": 768,
        "text_config": {"hidden_size": 512, "projection_dim": 512, "eos_token_id": 2},
        "text_config_dict": {"hidden_size": 768, "num_attention_heads": 12},
    }
    tower = clip.text_tower(twice)
    assert (tower.text.d_model, tower.projection, tower.eos_id) == (768, 768, None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "here: the config's model_type must be 'clip' or"),
        ({}, "model_type must be"),
        (
            {"model_type": "clip", "text_config": {"hidden_size": "many"}},
            "here: the config's hidden_size must be int, got 'many'",
        ),
        (
            {"model_type": "clip", "text_config": {"num_hidden_layers": 10**9}},
            "num_hidden_layers must be positive and at most 1000",
        ),
        (
            {"model_type": "clip", "text_config": {"vocab_size": -1}},
            "vocab_size must be positive",
        ),
    ],
)
def test_another_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        clip.text_module(config, where="here")


def test_a_length_beyond_the_positions_is_refused():
    assert clip.convert([str(FOLDER)]).text["length"] == 24
    with pytest.raises(ValueError, match=r"between 2 and 24, .* got 77"):
        clip.convert([str(FOLDER)], length=77)


def test_padding_is_that_of_the_special_tokens_where_these_are_newer(tmp_path):
    copy(tmp_path, *FILES)
    read_pad = lambda: clip.convert([str(tmp_path)]).text["tokenizer_options"]["pad"]  # noqa: E731
    assert read_pad() == "<|endoftext|>"
    settings, special = (
        tmp_path / "tokenizer_config.json",
        tmp_path / "special_tokens_map.json",
    )
    settings.write_text(json.dumps({"pad_token": "<|endoftext|>"}))
    # Stable Diffusion 2's folder says both.
    special.write_text(json.dumps({"pad_token": "!"}))
    assert read_pad() == "!"
    values = {"pad_token": {"content": "<|startoftext|>"}, "added_tokens_decoder": {}}
    settings.write_text(json.dumps(values))
    assert read_pad() == "<|startoftext|>"


def test_the_tokenizer_may_lie_in_another_folder(tmp_path):
    network, other = tmp_path / "network", tmp_path / "tokenizer"
    network.mkdir()
    other.mkdir()
    copy(network, "config.json", "model.safetensors")
    copy(other, "tokenizer.json")
    (other / "tokenizer_config.json").write_text('{"pad_token": "!"}')
    with pytest.raises(
        ValueError, match=r"vocab.json and merges.txt, or tokenizer.json"
    ):
        clip.convert([str(network)])
    model = clip.convert([str(network), str(other)])
    assert model.files == {"tokenizer.json": str(other / "tokenizer.json")}
    assert model.text["tokenizer_file"] == "tokenizer.json"
    assert model.text["tokenizer_options"] == {"pad": "!"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resample": 2}, "resample must be 3, got 2"),
        ({"do_center_crop": False}, "do_center_crop must be True"),
        ({"size": {"height": 24, "width": 24}}, "a size must be one number"),
        ({"crop_size": {"height": 24, "width": 20}}, "a size must be one number"),
    ],
)
def test_other_ways_to_prepare_pictures_are_refused(tmp_path, changes, message):
    path = tmp_path / "preprocessor_config.json"
    copy(tmp_path, path.name)
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        clip_pictures.preprocessing(str(tmp_path))


def test_sizes_of_pictures_are_read_in_either_form(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"size": 30, "crop_size": 28, "image_mean": [0, 0, 0]}))
    prepare = clip_pictures.preprocessing(str(tmp_path))
    assert (prepare.resize, prepare.crop, prepare.mean) == (30, 28, (0, 0, 0))
    assert clip_pictures.preprocessing(str(FOLDER)).resize == 24
