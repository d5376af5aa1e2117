"""`imagen-jax sample` on a tiny cascade: what it writes, stops at and goes on from."""

import argparse
import dataclasses
import json
import signal

import numpy as np
import pytest
from PIL import Image

from imagen_jax import loading
from imagen_jax.cascade import drawing, settings
from imagen_jax.commands import main, sample, sampling_flags
from tests import tiny_cascade

PROMPTS = ["a red cat", "two dogs"]


@pytest.fixture(scope="module")
def model():
    return tiny_cascade.model()


@pytest.fixture
def loaded(model, monkeypatch):
    """What was asked of `loading.load`, which gives the tiny cascade."""
    asked = []

    def load(name, dtype=None, **fields):
        asked.append((name, dtype, fields))
        return dataclasses.replace(model, name=name)

    monkeypatch.setattr(loading, "load", load)
    return asked


def run(capsys, *argv):
    status = main.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def pictures(folder):
    return {p.name: np.asarray(Image.open(p)) for p in folder.glob("0*.png")}


def assert_same(one, other):
    assert one.keys() == other.keys() and one
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_a_run_from_saved_pictures_equals_the_uninterrupted_one(
    capsys, tmp_path, loaded
):
    """With the settings, prompts, seeds and model of the files."""
    argv = ["sample", *PROMPTS, "--num", 2, "--seed", 7, "--guidance", "4,1"]
    argv += ["--set", "gamma=0.9", "--model", "mine"]
    whole, part = tmp_path / "whole", tmp_path / "part"
    status, out, _ = run(capsys, *argv, "--out", whole)
    assert status == 0 and "4 pictures" in out
    assert run(capsys, *argv, "--until", "base", "--out", part)[0] == 0
    assert not list(part.glob("*_up_*"))
    assert run(capsys, "sample", "--from", part, "--out", part)[0] == 0
    assert loaded[-1][0] == "mine"
    assert_same(pictures(whole), pictures(part))
    # Pictures of the base alone, into another folder, with another setting.
    other = tmp_path / "other"
    files = sorted(part.glob("*_base_*"))
    assert run(capsys, "sample", "--from", *files, "--aug-level", 0.4,
               "--out", other)[0] == 0  # fmt: skip
    a, b = pictures(whole), pictures(other)
    np.testing.assert_array_equal(a["003_base_8.png"], b["003_base_8.png"])
    assert (a["003_up_16.png"] != b["003_up_16.png"]).any()


def test_the_settings_of_a_run_are_a_recipe(capsys, tmp_path, loaded):
    first, second = tmp_path / "first", tmp_path / "second"
    argv = ["sample", "a cat", "--steps", "3,1", "--solver", "ddim,ancestral"]
    run(capsys, *argv, "--threshold", "none,static", "--out", first)
    file = first / "settings.json"
    run(capsys, "sample", "a cat", "--recipe", file, "--out", second)
    one, other = (
        json.loads((f / "settings.json").read_text()) for f in (first, second)
    )
    assert one["stages"] == other["stages"]
    assert [s["threshold"] for s in one["stages"]] == ["none", "static"]
    assert_same(pictures(first), pictures(second))
    # Flags come before the file.
    run(capsys, "sample", "a cat", "--recipe", file, "--steps", 2, "--out", second)
    again = json.loads((second / "settings.json").read_text())
    assert [s["steps"] for s in again["stages"]] == [2, 2]


def test_interrupting_keeps_what_is_done_and_says_so(
    capsys, tmp_path, loaded, monkeypatch
):
    """Ctrl-C while the second stage draws: its signal, raised in the loop itself."""
    once = drawing.Chunk._report

    def report(self, stage, step, steps, x):
        if stage.name == "up" and step == 1:
            signal.raise_signal(signal.SIGINT)
        once(self, stage, step, steps, x)

    argv = ["sample", *PROMPTS, "--seed", 7]
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert run(capsys, *argv, "--out", whole)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(drawing.Chunk, "_report", report)
        status, _, err = run(capsys, *argv, "--out", part)
    assert status == sample.STOPPED
    assert f"2 of base are drawn; --from {part} goes on" in err
    assert sorted(pictures(part)) == ["000_base_8.png", "001_base_8.png"]
    assert not json.loads((part / "settings.json").read_text())["complete"]
    assert run(capsys, "sample", "--from", part, "--out", part)[0] == 0
    assert_same(pictures(whole), pictures(part))
    # And Ctrl-C means what it did before.
    assert signal.getsignal(signal.SIGINT) in (
        signal.default_int_handler,
        signal.SIG_IGN,
    )


def test_a_run_stopped_before_its_first_picture_remembers_its_size(
    capsys, tmp_path, loaded, monkeypatch
):
    def report(self, stage, step, steps, x):
        raise drawing.Stop

    part = tmp_path / "part"
    argv = ["sample", "a cat", "--until", "base", "--size", "32x16", "--out", part]
    with monkeypatch.context() as patch:
        patch.setattr(drawing.Chunk, "_report", report)
        status, _, err = run(capsys, *argv)
    assert status == sample.STOPPED and "none is drawn" in err
    assert run(capsys, "sample", "--from", part, "--until", "base",
               "--out", part)[0] == 0  # fmt: skip
    assert list(pictures(part)) == ["000_base_16x8.png"]
    # And is a recipe like any other.
    assert len(settings.read(part / "settings.json")) == 2


def test_frames_become_animations(capsys, tmp_path, loaded):
    argv = ["sample", "a cat", "--frames", 2, "--animation", "gif"]
    assert run(capsys, *argv, "--out", tmp_path)[0] == 0
    assert Image.open(tmp_path / "000.gif").n_frames == 4
    assert Image.open(tmp_path / "sheet_animation.gif").n_frames == 4


def test_flags_of_memory_reach_the_model(capsys, tmp_path, loaded):
    argv = ["sample", "a cat", "--batch", "4,2", "--dtype", "float16"]
    assert run(capsys, *argv, "--mesh", "fsdp=4", "--out", tmp_path)[0] == 0
    (asked,) = loaded
    mesh = {"data": -1, "fsdp": 4}
    assert asked == ("emoji", "float16", {"batch": (4, 2), "mesh": mesh})


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ([], "at least one prompt is required"),
        (["a", "--from", "x"], "prompts, --num and --seed are in the files"),
        (["--from", "nowhere"], "nowhere"),
        (["a", "--until", "top"], r"stages must be among ['base', 'up'], got ['top']"),
        (["a", "--seed", "-1"], "seed must be in [0, 2^32)"),
        (["a", "--recipe", "none.json"], "none.json"),
        (["a", "--set", "gama=1"], "did you mean 'gamma'"),
        (["a", "--threshold", "soft"], "threshold must be one of"),
        (["a", "--frames", "-1"], "frames must be >= 0"),
    ],
)
def test_a_mistake_is_one_line(capsys, tmp_path, loaded, monkeypatch, argv, named):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, "sample", *argv)
    lines = [line for line in err.splitlines() if "error" in line]
    assert status == 2 and len(lines) == 1 and named in lines[0], err


def test_flags_of_guidance_become_settings():
    parser = argparse.ArgumentParser()
    sampling_flags.add_settings(parser)
    flags = (
        "--guidance 4,off --guidance-schedule oscillating:2:5,constant "
        "--guidance-interval 0.28:2.9 --apg 0:2.5,off:off --autoguidance 2"
    )
    given = sampling_flags.settings_of(parser.parse_args(flags.split()))
    told = {name: value for name, value in given.items() if value is not None}
    assert told == {
        "guidance": (4.0, "off"),
        "guidance_schedule": ("oscillating:2:5", "constant"),
        "guidance_low": 0.28,
        "guidance_high": 2.9,
        "apg_eta": (0.0, "off"),
        "apg_norm": (2.5, "off"),
        "autoguidance": 2.0,
    }
    for wrong in ("0.28", "0.28:2.9:3", "a:b"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--guidance-interval", wrong])


def test_interpolation_takes_two_prompts():
    assert sample.between(["a", "b"], 2) == ["a ~> b @ 0", "a ~> b @ 1"]
    assert sample.between(["a", "b"], None) == ["a", "b"]
    with pytest.raises(ValueError, match="two prompts and at least 2 pictures"):
        sample.between(["a"], 3)
