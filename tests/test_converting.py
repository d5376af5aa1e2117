"""A published model, which is a fake of two networks, becomes a model directory."""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
import tracemalloc
import types

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from imagen_jax import converting
from imagen_jax.checkpoints import (
    huggingface,
    manifest,
    model_directory,
    safetensors_writer,
    tensors,
)
from imagen_jax.commands import main
from imagen_jax.published import conversion

RANDOM = np.random.default_rng(0)
THEIRS = {
    "embed.weight": RANDOM.normal(size=(40, 32)).astype(np.float32),
    "out.weight": RANDOM.normal(size=(32, 48)).astype(np.float32),
    "out.bias": RANDOM.normal(size=32).astype(np.float32),
    "decoder.weight": np.ones((2, 2), np.float32),
}
# The second network has a fused kernel, which is split.
FUSED = {"qkv": RANDOM.normal(size=(24, 8)).astype(ml_dtypes.bfloat16)}
OURS = {
    "embed": {"embedding": (40, 32)},
    "out": {"kernel": (48, 32), "bias": (32,)},
}
TABLE = {
    "embed/embedding": tensors.Source(("embed.weight",)),
    "out/kernel": tensors.Source(("out.weight",), np.transpose),
    "out/bias": tensors.Source(("out.bias",)),
}
QUERY = {
    "query/kernel": tensors.Source(("qkv",), lambda a: a[:8].T),
    "rest/kernel": tensors.Source(("qkv",), lambda a: a[8:].T),
}
STAGE = {"kind": "stage", "name": "base"}
NOTICE = "Fake is licensed under the Fake License."


def shapes(tree):
    return {
        name: shapes(v) if isinstance(v, dict) else types.SimpleNamespace(shape=v)
        for name, v in tree.items()
    }


def fake_convert(paths, *, length: int = 7, stages: bool = True):
    """What a module of `published/` does."""
    text, base = paths
    parts = (
        conversion.Part(
            name="text",
            tensors=huggingface.open_folder(text),
            table=TABLE,
            shapes=shapes(OURS),
            unused=lambda name: name.startswith("decoder."),
        ),
        conversion.Part(
            name="base",
            tensors=huggingface.open_folder(base, "diffusion_pytorch_model"),
            table=QUERY,
            shapes=shapes({"query": {"kernel": (8, 8)}, "rest": {"kernel": (8, 16)}}),
        ),
    )
    return conversion.Conversion(
        stages=[STAGE] if stages else [],
        text={"length": length, "sentencepiece": "spiece.model"},
        parts=parts if stages else parts[:1],
        files={"spiece.model": f"{text}/spiece.model"},
        notice=NOTICE,
    )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Folders of the fake model, whose format is called "fake"."""
    text, base = tmp_path / "text_encoder", tmp_path / "unet"
    text.mkdir()
    base.mkdir()
    safetensors.numpy.save_file(THEIRS, text / "model.safetensors")
    (text / "spiece.model").write_bytes(b"pieces")
    safetensors.numpy.save_file(FUSED, base / "diffusion_pytorch_model.safetensors")
    module = types.ModuleType("fake")
    module.convert = fake_convert  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "imagen_jax.published.fake", module)
    monkeypatch.setitem(converting.FORMATS, "fake", "fake")
    return [str(text), str(base)]


@pytest.fixture
def run(folders, tmp_path, capsys):
    """The command, as it is typed."""

    def call(*more, out="model", paths=folders):
        argv = ["convert", "--from", "fake", *paths, "--to", str(tmp_path / out), *more]
        status = main.main(argv)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def loaded(folder, name="text", tree=OURS):
    return model_directory.parameters(folder, name)(shapes(tree))


def test_a_converted_model_has_all_its_parts(run, tmp_path):
    status, out, err = run("--dtype", "float32")
    folder = tmp_path / "model"
    assert status == 0 and "text, base" in out and NOTICE in err
    assert {p.name for p in folder.iterdir()} == {
        "model.json", "manifest.json", "NOTICE", "spiece.model", "text.safetensors",
        "base.safetensors",
    }  # fmt: skip
    got = loaded(folder)
    np.testing.assert_array_equal(got["out"]["kernel"], THEIRS["out.weight"].T)
    np.testing.assert_array_equal(got["embed"]["embedding"], THEIRS["embed.weight"])
    base = loaded(
        folder, "base", {"query": {"kernel": (8, 8)}, "rest": {"kernel": (8, 16)}}
    )
    np.testing.assert_array_equal(base["rest"]["kernel"], FUSED["qkv"][8:].T)
    assert model_directory.read(folder).stages == [STAGE]
    assert (folder / "NOTICE").read_text() == NOTICE + "\n"


def test_the_manifest_knows_every_file_and_its_source(run, folders, tmp_path):
    run()
    folder = tmp_path / "model"
    found = json.loads((folder / "manifest.json").read_text())
    for path in folder.iterdir():
        if path.name != "manifest.json":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            size = path.stat().st_size
            assert found["files"].pop(path.name) == {"size": size, "sha256": digest}
    assert not found["files"]
    origin = found["origin"]
    source = tmp_path / "text_encoder" / "model.safetensors"
    assert origin["files"]["text"] == {"model.safetensors": manifest.entry(source)}
    assert origin["paths"] == ["text_encoder", "unet"] and origin["format"] == "fake"
    assert str(tmp_path) not in (folder / "manifest.json").read_text()


def test_an_encoder_alone_keeps_its_text_config(run, tmp_path):
    status, _, _ = run("--option", "stages=false", "--option", "length=9")
    assert status == 0
    described = model_directory.read(tmp_path / "model")
    assert described.stages == []
    assert described.text == {"length": 9, "sentencepiece": "spiece.model"}


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 0.0), ("bfloat16", 2**-8), ("float16", 2**-10), ("int8", 0.02)],
)
def test_every_stored_type_loses_what_it_must(run, tmp_path, dtype, tolerance):
    assert run("--dtype", dtype)[0] == 0
    got = loaded(tmp_path / "model")["out"]["kernel"]
    assert got.dtype == np.float32
    error = np.abs(got - THEIRS["out.weight"].T)
    assert error.max() <= tolerance * np.abs(THEIRS["out.weight"]).max()
    assert (error.max() > 0) == (tolerance > 0)
    names = set(safetensors.numpy.load_file(tmp_path / "model" / "text.safetensors"))
    assert ("out/kernel@scale" in names) == (dtype == "int8")


def test_a_dry_run_tells_what_becomes_what_and_writes_nothing(run, tmp_path):
    status, out, err = run("--dry_run", "--dtype", "int8")
    assert status == 0 and NOTICE in err and not (tmp_path / "model").exists()
    lines = out.splitlines()
    assert (
        "  text/out/kernel [48, 32] int8 <- out.weight [32, 48] float32" in lines
        and "  not read: decoder.weight [2, 2]" in lines
        and "spiece.model <- spiece.model" in lines
        and "base: 192 parameters, 0.0 MB as int8" in lines
    )


def broken(tensors, fail):
    """A checkpoint that is interrupted when the array `fail` is read."""
    read: list[str] = []

    class Broken:
        where, files = tensors.where, tensors.files
        names, shape, dtype = tensors.names, tensors.shape, tensors.dtype

        def read(self, name):
            if name == fail:
                raise KeyboardInterrupt
            read.append(name)
            return tensors.read(name)

    return Broken(), read


def convert_reading(folders, out, fail="", part=0, dtype="float32"):
    """Convert; the names of the arrays that were read."""
    model = fake_convert(folders)
    parts, reads = list(model.parts), []
    for i, each in enumerate(parts):
        told, read = broken(each.tensors, fail if i == part else "")
        parts[i] = dataclasses.replace(each, tensors=told)
        reads.append(read)
    model = dataclasses.replace(model, parts=parts)
    if fail:
        with pytest.raises(KeyboardInterrupt):
            converting.convert(model, out, dtype=dtype, origin={})
    else:
        converting.convert(model, out, dtype=dtype, origin={})
    return reads


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_interrupted_convert_goes_on_with_the_first_missing_tensor(
    folders, tmp_path, dtype
):
    out = tmp_path / "model"
    convert_reading(folders, out, "out.bias", dtype=dtype)
    assert not (out / "model.json").exists()
    assert not (out / "text.safetensors").exists()
    assert convert_reading(folders, out, dtype=dtype) == [["out.bias"], ["qkv", "qkv"]]
    convert_reading(folders, tmp_path / "whole", dtype=dtype)
    for name in ("text.safetensors", "manifest.json", "model.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not [p.name for p in out.iterdir() if p.name.startswith(".")]


def test_a_finished_part_is_passed_over_if_its_checksum_is_right(folders, tmp_path):
    out = tmp_path / "model"
    convert_reading(folders, out, "qkv", part=1)
    assert convert_reading(folders, out)[0] == []
    # Also after all is done; a damaged file is written again.
    assert convert_reading(folders, out) == [[], []]
    data = bytearray((out / "text.safetensors").read_bytes())
    data[-1] ^= 1
    (out / "text.safetensors").write_bytes(data)
    assert convert_reading(folders, out) == [[s.names[0] for s in TABLE.values()], []]
    loaded(out)


def test_a_few_arrays_are_held_and_never_the_network(tmp_path, monkeypatch):
    for module in (manifest, safetensors_writer):
        monkeypatch.setattr(module, "CHUNK", 1 << 16)
    arrays = {f"layer_{i:02}": np.ones((400, 500), np.float32) for i in range(30)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    part = conversion.Part(
        name="text",
        tensors=huggingface.open_folder(tmp_path),
        table={name: tensors.Source((name,), np.transpose) for name in arrays},
        shapes=shapes(dict.fromkeys(arrays, (500, 400))),
    )
    model = conversion.Conversion(stages=(), text={"a": 1}, parts=(part,), files={})
    tracemalloc.start()
    converting.convert(model, tmp_path / "model", dtype="int8", origin={})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # As read, as float32 in our order, and what scaling it makes; 30 are in the file.
    assert peak < 6 * arrays["layer_00"].nbytes


def test_another_source_is_not_mixed_with_what_is_there(folders, tmp_path):
    out = tmp_path / "model"
    convert_reading(folders, out, "out.bias")
    other = {**THEIRS, "embed.weight": THEIRS["embed.weight"] + 1}
    safetensors.numpy.save_file(other, f"{folders[0]}/model.safetensors")
    assert "embed.weight" in convert_reading(folders, out)[0]
    np.testing.assert_array_equal(
        loaded(out)["embed"]["embedding"], other["embed.weight"]
    )


def test_a_directory_of_another_model_is_left_alone(run, tmp_path):
    assert run()[0] == 0
    before = (tmp_path / "model" / "manifest.json").read_bytes()
    status, _, err = run("--dtype", "float32")
    assert status == 2 and "already holds another model" in err
    assert (tmp_path / "model" / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"out.bias": None}, "tensor out.bias is missing"),
        ({"more": np.ones(2)}, "tensor more has no place in this network"),
        ({"out.bias": np.ones((33,), np.float32)}, "out.bias must give out/bias"),
        (
            {"out.weight": np.ones((32, 47), np.float32)},
            r"out.weight must give out/kernel of shape \(48, 32\), got \(47, 32\)",
        ),
        ({"out.bias": np.full((32,), np.nan, np.float32)}, "out/bias .*not finite"),
    ],
)
def test_a_wrong_tensor_is_an_error_that_names_it(folders, run, tmp_path, change, line):
    theirs = {k: v for k, v in {**THEIRS, **change}.items() if v is not None}
    safetensors.numpy.save_file(theirs, f"{folders[0]}/model.safetensors")
    status, _, err = run()
    assert status == 2 and "text_encoder/model.safetensors" in err
    assert re.search(line, err)
    assert not (tmp_path / "model" / "model.json").exists()


def test_a_number_too_large_for_float16_is_an_error(folders, run):
    theirs = {**THEIRS, "out.bias": np.full(32, 1e5, np.float32)}
    safetensors.numpy.save_file(theirs, f"{folders[0]}/model.safetensors")
    status, _, err = run("--dtype", "float16")
    assert status == 2 and "out/bias holds 100000, which is too large" in err


def test_a_full_disk_is_told_before_anything_is_written(run, tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    status, _, err = run()
    assert status == 2 and "GB free; make room" in err
    assert not (tmp_path / "model").exists()


def test_a_disk_that_fills_up_leaves_what_can_be_gone_on_with(
    folders, tmp_path, monkeypatch
):
    write = safetensors_writer.Writer.write

    def full(self, name, array):
        if name == "out/bias":
            raise OSError(28, "No space left on device")
        write(self, name, array)

    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(safetensors_writer.Writer, "write", full)
        with pytest.raises(
            ValueError, match=r"cannot write .*text\.safetensors.*go on"
        ):
            converting.convert(fake_convert(folders), out, dtype="float32", origin={})
    assert convert_reading(folders, out)[0] == ["out.bias"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--option", "layer=1"], "fake has ['length', 'stages'], got 'layer'"),
        (["--option", "length"], "must be NAME=VALUE"),
        (["--from", "sd"], "must be one of ['bert'"),
    ],
)
def test_mistyped_commands_are_one_clear_line(run, argv, line):
    status, _, err = run(*argv)
    assert status == 2 and line in err and len(err.splitlines()) == 1


def test_a_damaged_directory_names_the_file(run, tmp_path):
    run()
    folder = tmp_path / "model"
    for name, read in {
        "NOTICE": model_directory.read,
        "spiece.model": model_directory.read,
        "model.json": model_directory.read,
        "text.safetensors": loaded,
    }.items():
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(ValueError, match=f"{folder}/{name}"):
            read(folder)
        (folder / name).write_bytes(whole)
        read(folder)
