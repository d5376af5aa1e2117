import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from imagen_jax import loading
from imagen_jax.cascade import drawing
from imagen_jax.commands import grid, main, sample
from tests import tiny_cascade


@pytest.fixture(scope="module")
def model():
    return tiny_cascade.model()


@pytest.fixture(autouse=True)
def loaded(model, monkeypatch):
    monkeypatch.setattr(
        loading, "load", lambda name, *a, **b: dataclasses.replace(model, name=name)
    )


def run(*argv):
    return main.main(["grid", *[str(a) for a in argv]])


def test_a_sweep_is_one_picture_its_cells_and_their_json(tmp_path):
    argv = ["--x", "guidance=1,3/2", "--y", "prompt=a cat|dogs, two", "--cell", 32]
    assert run(*argv, "--seed", 4, "--out", tmp_path) == 0
    told = json.loads((tmp_path / "grid.json").read_text())
    assert told["x"] == {"name": "guidance", "values": ["1", "3/2"]}
    assert told["y"]["values"] == ["a cat", "dogs, two"]
    assert [(c["x"], c["y"]) for c in told["cells"]] == [
        ("1", "a cat"),
        ("3/2", "a cat"),
        ("1", "dogs, two"),
        ("3/2", "dogs, two"),
    ]
    last = told["cells"][-1]
    assert [s["guidance"] for s in last["stages"]] == [3.0, 2.0]
    cell = np.asarray(Image.open(tmp_path / last["file"]))
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    # Each cell's 16 pixels are enlarged to 32 in its place.
    corner = sheet[-38:-6, -38:-6]
    np.testing.assert_array_equal(corner[::2, ::2], cell)


def test_interrupting_keeps_finished_cells(tmp_path, monkeypatch, capsys):
    once, seen = drawing.Chunk._report, []

    def report(self, *args):
        seen.append(args)
        if len(seen) == 8:  # Of 6 steps a cell: in the second one.
            sample.signal.raise_signal(sample.signal.SIGINT)
        once(self, *args)

    monkeypatch.setattr(drawing.Chunk, "_report", report)
    assert run("a cat", "--x", "seed=1,2,3", "--out", tmp_path) == sample.STOPPED
    assert "stopped after 1 of 3 cells" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "grid.json").read_text())["cells"]) == 1
    assert (tmp_path / "grid.png").is_file()


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("steps=1,20", ("steps", (1, 20), ("1", "20"))),
        ("aug-level=0/0.5", ("aug_level", ((0, 0.5),), ("0/0.5",))),
        ("solver=ddim/null", ("solver", (("ddim", None),), ("ddim/null",))),
        ("prompt=a, b|c", ("prompt", ("a, b", "c"), ("a, b", "c"))),
        ("seed=7", ("seed", (7,), ("7",))),
    ],
)
def test_an_axis_is_read(text, axis):
    assert grid.axis(text) == axis


@pytest.mark.parametrize("text", ["steps", "steps=", "steps=1,,2", "=1", "seed=a"])
def test_a_bad_axis_is_refused(text, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("a cat", "--x", text, "--out", tmp_path)
    assert "argument --x" in capsys.readouterr().err
