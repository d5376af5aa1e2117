import json

import numpy as np
import pytest

from imagen_jax.checkpoints import manifest, model_directory

KERNEL = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
TREE = {"dense": {"kernel": KERNEL, "bias": np.ones(3, np.float32)}}
STAGES = [{"kind": "stage", "name": "base"}]


@pytest.fixture
def folder(tmp_path):
    model_directory.write(tmp_path, STAGES, {"base": TREE}, "float32", ["fox", "owl"])
    return tmp_path


@pytest.mark.parametrize("dtype", sorted(model_directory.DTYPES))
def test_what_is_written_is_read_as_float32(tmp_path, dtype):
    size = model_directory.write(tmp_path, STAGES, {"base": TREE}, dtype)
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    got = model_directory.parameters(tmp_path, "base")(TREE)["dense"]
    assert got["kernel"].dtype == np.float32
    np.testing.assert_allclose(got["kernel"], KERNEL, atol=0.02)
    np.testing.assert_array_equal(got["bias"], TREE["dense"]["bias"])


def test_layouts_are_what_encode_stores():
    for dtype in model_directory.DTYPES:
        stored = model_directory.encode("a/kernel", KERNEL, dtype)
        told = model_directory.layout("a/kernel", KERNEL.shape, dtype)
        assert told == {name: (a.dtype, a.shape) for name, a in stored.items()}


def test_parameters_are_placed_one_by_one_as_they_are_stored(tmp_path):
    model_directory.write(tmp_path, STAGES, {"base": TREE}, "float16")
    placed = []

    def place(name, array):
        placed.append((name, array.dtype))
        return name

    tree = model_directory.parameters(tmp_path, "base", place)(TREE)
    assert tree == {"dense": {"kernel": "dense/kernel", "bias": "dense/bias"}}
    assert sorted(placed) == [("dense/bias", "float16"), ("dense/kernel", "float16")]


@pytest.mark.parametrize(
    ("value", "line"),
    [(1e5, "x/kernel holds 100000, which is too large"), (np.inf, "not finite")],
)
def test_numbers_that_cannot_be_stored_are_errors(value, line):
    array = np.full((2, 2), -value, np.float32)
    with pytest.raises(ValueError, match=line):
        model_directory.encode("x/kernel", array, "float16")


def test_a_network_of_other_shapes_is_refused_before_values_are_read(folder):
    read = model_directory.parameters(folder, "base", place=None)  # never called
    for tree, line in [
        ({"dense": {"kernel": KERNEL}}, "has the unknown tensor dense/bias"),
        ({"dense": {**TREE["dense"], "x": KERNEL}}, "lacks tensor dense/x"),
        ({"dense": {**TREE["dense"], "kernel": KERNEL.T}}, r"shape \(32, 64\), got"),
    ]:
        with pytest.raises(ValueError, match=rf"base\.safetensors.*{line}"):
            read(tree)


def test_a_description_has_stages_words_and_the_text_of_an_encoder(folder):
    assert model_directory.read(folder) == (STAGES, {}, {"fox", "owl"})
    text = {"length": 77}
    (folder / "model.json").write_text(model_directory.describe([], text=text))
    assert model_directory.read(folder) == ([], text, frozenset())


def test_directories_of_older_versions_are_read(folder):
    (folder / "model.json").write_text(json.dumps({"format": 1, "stages": STAGES}))
    assert model_directory.read(folder).stages == STAGES


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 1, "stages": [3]}', '{"format": 1}', "[" * 9999],
)
def test_a_damaged_description_is_named(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json is damaged"):
        model_directory.read(folder)


def test_later_formats_ask_for_an_upgrade(folder):
    (folder / "model.json").write_text('{"format": 2, "stages": []}')
    with pytest.raises(ValueError, match=r"has format 2.*upgrade"):
        model_directory.read(folder)
    (folder / "model.json").write_text(model_directory.describe(STAGES))
    (folder / "manifest.json").write_text('{"format": 2, "origin": {}, "files": {}}')
    with pytest.raises(ValueError, match=r"has format 2.*upgrade"):
        model_directory.read(folder)


def test_a_manifest_names_what_is_missing_or_has_changed(folder):
    (folder / "spiece.model").write_bytes(b"pieces")
    files = {path.name: manifest.entry(path) for path in folder.iterdir()}
    manifest.write(folder, {}, files)
    model_directory.read(folder)
    for change, line in [
        (b"pieceS", "has changed since it was written"),
        (b"piece", "has 5 bytes instead of 6"),
    ]:
        (folder / "spiece.model").write_bytes(change)
        with pytest.raises(ValueError, match=rf"spiece\.model {line}"):
            model_directory.read(folder)
    (folder / "spiece.model").unlink()
    with pytest.raises(ValueError, match=r"spiece\.model is missing"):
        model_directory.read(folder)
    text = (folder / "manifest.json").read_text().replace("spiece", "../spiece")
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        model_directory.read(folder)
