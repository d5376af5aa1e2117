import json
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from imagen_jax.checkpoints import huggingface, tensors

ARRAYS = {
    "encoder.a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder.b": np.arange(4).astype(ml_dtypes.bfloat16),
    "shared": np.arange(8, dtype=np.float16).reshape(4, 2),
}
FILES = {
    "encoder.a": "model-00001-of-00002.safetensors",
    "encoder.b": "model-00001-of-00002.safetensors",
    "shared": "model-00002-of-00002.safetensors",
}


def write_index(folder, weight_map, name="model.safetensors.index.json"):
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    (folder / name).write_text(text)


@pytest.fixture
def sharded(tmp_path):
    for file in set(FILES.values()):
        part = {name: ARRAYS[name] for name in ARRAYS if FILES[name] == file}
        safetensors.numpy.save_file(part, tmp_path / file)
    write_index(tmp_path, FILES)
    return tmp_path


def assert_holds(opened, arrays):
    assert isinstance(opened, tensors.Tensors)
    assert opened.names() == sorted(arrays)
    for name, array in arrays.items():
        assert opened.shape(name) == array.shape and opened.dtype(name) == array.dtype
        got = opened.read(name)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


def test_a_single_file_is_read_by_name(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "model.safetensors")
    opened = huggingface.open_folder(tmp_path)
    assert_holds(opened, ARRAYS)
    assert opened.where == str(tmp_path / "model.safetensors")


def test_shards_are_one_checkpoint(sharded):
    opened = huggingface.open_folder(sharded)
    assert_holds(opened, ARRAYS)
    assert tensors.size(opened) == 6 * 4 + 4 * 2 + 8 * 2


def test_the_stem_and_the_variant_name_the_files(tmp_path):
    half = {n: a.astype(np.float16) for n, a in ARRAYS.items()}
    stem = "diffusion_pytorch_model"
    safetensors.numpy.save_file(half, tmp_path / f"{stem}.fp16.safetensors")
    assert_holds(huggingface.open_folder(tmp_path, stem), half)
    safetensors.numpy.save_file(ARRAYS, tmp_path / f"{stem}.safetensors")
    assert_holds(huggingface.open_folder(tmp_path, stem), ARRAYS)
    assert_holds(huggingface.open_folder(tmp_path, stem, "fp16"), half)
    with pytest.raises(ValueError, match=r"neither model\.safetensors"):
        huggingface.open_folder(tmp_path)


def test_a_variant_may_have_its_own_index(sharded):
    file = "model.fp16-00001-of-00001.safetensors"
    safetensors.numpy.save_file({"one": ARRAYS["shared"]}, sharded / file)
    write_index(sharded, {"one": file}, "model.safetensors.index.fp16.json")
    opened = huggingface.open_folder(sharded, variant="fp16")
    assert_holds(opened, {"one": ARRAYS["shared"]})
    assert_holds(huggingface.open_folder(sharded), ARRAYS)


def test_an_array_is_read_only_when_asked_for(sharded):
    opened = huggingface.open_folder(sharded)
    file = sharded / FILES["shared"]
    os.truncate(file, file.stat().st_size - 1)
    np.testing.assert_array_equal(opened.read("encoder.a"), ARRAYS["encoder.a"])
    with pytest.raises(ValueError, match=r"00002-of-00002.*'shared' is cut short"):
        opened.read("shared")


@pytest.mark.parametrize(
    "file",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "a/model.safetensors",
        "..\\model.safetensors",
        "model.safetensors\0",
        "pytorch_model.bin",
        "..",
        "",
        3,
        None,
        ["model.safetensors"],
    ],
    ids=repr,
)
def test_an_index_names_only_files_of_its_folder(sharded, file):
    safetensors.numpy.save_file(ARRAYS, sharded.parent / "model.safetensors")
    write_index(sharded, {**FILES, "shared": file})
    with pytest.raises(ValueError, match=r"index\.json.*no safetensors file of its"):
        huggingface.open_folder(sharded)


def test_an_index_and_its_files_have_the_same_arrays(sharded):
    less = {n: f for n, f in FILES.items() if n != "encoder.b"}
    for weight_map, name in [
        (less, "encoder.b"),
        ({**FILES, "more": FILES["shared"]}, "more"),
        ({**FILES, "shared": FILES["encoder.a"]}, "shared"),
    ]:
        write_index(sharded, weight_map)
        with pytest.raises(ValueError, match=f"does not fit.*{name}.* (not in|there)"):
            huggingface.open_folder(sharded)


def test_a_missing_shard_is_named(sharded):
    (sharded / FILES["shared"]).unlink()
    with pytest.raises(ValueError, match=r"no file .*00002-of-00002"):
        huggingface.open_folder(sharded)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"weight_map": []}', "{}", '{"a": 1, "a": 2}', "[" * 99999]
)
def test_a_damaged_index_is_named(sharded, text):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json") as error:
        huggingface.open_folder(sharded)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt"]
)
def test_pickles_are_refused_with_the_way_to_safetensors(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x02")
    with pytest.raises(ValueError, match=f"{name}, a pickle.*save_pretrained"):
        huggingface.open_folder(tmp_path)


def test_empty_and_missing_folders_are_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="neither"):
        huggingface.open_folder(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        huggingface.open_folder(tmp_path / "none")


def test_the_config_is_an_object_of_bounded_size(tmp_path):
    (tmp_path / "config.json").write_text('{"d_model": 4}')
    assert huggingface.read_config(tmp_path) == {"d_model": 4}
    (tmp_path / "config.json").write_bytes(b" " * (huggingface.MAX_JSON + 1))
    with pytest.raises(ValueError, match=r"config\.json is damaged.*more than"):
        huggingface.read_config(tmp_path)
    with pytest.raises(ValueError, match=r"no .*other\.json"):
        huggingface.read_config(tmp_path, "other.json")
