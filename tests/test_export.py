"""Stages behind those of another model; end_to_end/ exports what was trained."""

import numpy as np
import pytest

from imagen_jax import export, loading
from imagen_jax.checkpoints import manifest, model_directory
from imagen_jax.commands import configs, main

SMALL = {"dense": {"kernel": np.ones((2, 2), np.float32)}}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A model of one stage with a licence, and working directories that are made up."""
    config = configs.load("emoji/base")
    folder = tmp_path / "model"
    stages = [export.portable(config).to_dict()]
    model_directory.write(folder, stages, {"text": SMALL, "base": SMALL}, "float32")
    (folder / "NOTICE").write_text("Keep this.\n")
    files = {path.name: manifest.entry(path) for path in folder.iterdir()}
    manifest.write(folder, {"format": "deepfloyd"}, files)
    monkeypatch.setattr(export.build, "read_config", configs.load)
    monkeypatch.setattr(export.store, "load", lambda *_: SMALL)
    return folder


def append(model, *stages, out="new"):
    argv = ["export", *stages, "--after", str(model), "--dtype", "float16"]
    return main.main([*argv, "--out", str(model.parent / out)])


def test_a_trained_stage_goes_behind_a_converted_models(runs):
    assert append(runs, "emoji/sr_64", "emoji/sr_256") == 0
    new = runs.parent / "new"
    described = model_directory.read(new)
    assert [s["name"] for s in described.stages] == ["base", "sr_64", "sr_256"]
    assert (new / "NOTICE").read_text() == "Keep this.\n"
    found = manifest.read(new)
    assert found["origin"] == {"format": "deepfloyd"}
    assert found["files"].keys() == {p.name for p in new.iterdir()} - {manifest.NAME}
    got = model_directory.parameters(new, "sr_64")(SMALL)
    np.testing.assert_array_equal(got["dense"]["kernel"], SMALL["dense"]["kernel"])
    assert len(loading.stage_configs(new)) == 3


def test_a_text_group_may_say_what_is_so_anyway():
    config, other = configs.load("emoji/base"), configs.load("emoji/sr_64")
    config.text.unmasked, config.text.encoder.dtype = False, "float32"
    config.text.encoder.gated, config.text.sentencepiece = True, "elsewhere"
    assert export.read_as(config) == export.read_as(other)
    config.text.cleaning = "deepfloyd"
    assert export.read_as(config) != export.read_as(other)


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("emoji/sr_256", "must start from"),
        ("emoji/base", "stage"),
        ("imagen/sr_256", "must start from"),
    ],
)
def test_stages_that_do_not_join_are_refused(runs, stage, line, capsys):
    assert append(runs, stage) == 2
    assert line in capsys.readouterr().err
    assert not (runs.parent / "new").exists()


def test_a_stage_of_another_text_encoder_is_refused(runs, monkeypatch, capsys):
    def other(name):
        config = configs.load(name)
        config.text.length += 1
        return config

    monkeypatch.setattr(export.build, "read_config", other)
    assert append(runs, "emoji/sr_64") == 2
    assert "another text encoder or tokenizer than" in capsys.readouterr().err


def test_a_model_is_not_written_over(runs, capsys):
    assert append(runs, "emoji/sr_64", out="model") == 2
    assert "already holds a model" in capsys.readouterr().err
