"""`imagen-jax edit` on a tiny cascade: files in, files out, and what it refuses."""

import argparse
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from imagen_jax import loading
from imagen_jax.cascade import editing, samples, text_to_image
from imagen_jax.commands import edit, main, sampling_flags
from tests import tiny_cascade

RNG = np.random.default_rng(1)
PICTURE = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
MASK = np.zeros((16, 16), np.uint8)
MASK[4:8, 8:12] = 255


@pytest.fixture(scope="module")
def model():
    return tiny_cascade.model()


@pytest.fixture
def files(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "picture.png")
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    return tmp_path


@pytest.fixture
def asked(model, monkeypatch):
    """What the command asks of a cascade that draws nothing."""
    seen = []

    def draw(self, prompts, *, given, progress, **settings):
        seen.append((prompts, given, settings))
        recipes = self.recipes_with(
            **{
                k: v
                for k, v in settings.items()
                if k not in ("num", "seed", "negative")
            }
        )
        first, shapes = self.cascade.plan(given)
        for i, shape in enumerate(shapes, first):
            self.cascade.check(i, recipes[i], given, shape)
        drawn = np.zeros((len(prompts), *shapes[-1], 3), np.uint8)
        return samples.Samples(tuple(prompts), (drawn,), ("up",))

    monkeypatch.setattr(loading, "load", lambda *_, **__: model)
    monkeypatch.setattr(text_to_image.TextToImage, "sample", draw)
    return seen


def run(capsys, files, *argv):
    where = ["--image", files / "picture.png", "--out", files / "out"]
    argv = ["edit", "a red cat", *where, *argv]
    status = main.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_an_edit_writes_pictures_settings_and_a_sheet(
    capsys, files, model, monkeypatch
):
    monkeypatch.setattr(loading, "load", lambda *_, **__: dataclasses.replace(model))
    status, out, _ = run(capsys, files, "--mask", files / "mask.png", "--seed", 3)
    assert status == 0 and "1 pictures" in out and "taken at" not in out
    drawn = np.asarray(Image.open(files / "out" / "000_up_16.png"))
    np.testing.assert_array_equal(drawn[MASK == 0], PICTURE[MASK == 0])
    assert (drawn[MASK > 0] != PICTURE[MASK > 0]).any()
    told = json.loads((files / "out" / "settings.json").read_text())
    assert told["edit"]["mask"].endswith("mask.png") and len(told["stages"]) == 2
    # The picture and what was made of it, side by side.
    sheet = Image.open(files / "out" / "sheet.png")
    assert sheet.width > 2 * 256
    # A recipe, like any run's.
    assert len(model.recipes_with(recipe=files / "out" / "settings.json")) == 2


def test_flags_reach_the_request_and_the_recipes(capsys, files, asked):
    mask = ["--mask", files / "mask.png"]
    assert run(capsys, files, *mask, "--resample", "3,2", "--strength", 0.9)[0] == 0
    _, request, settings = asked[-1]
    assert settings["resample"] == (3, 2) and settings["strength"] == 0.9
    np.testing.assert_array_equal(request.edit.mask[0, ..., 0], MASK / 255.0)
    assert run(capsys, files, "--outpaint", "0,0,16,0", "--tile", "0,16")[0] == 0
    _, request, settings = asked[-1]
    assert request.size == (16, 32) and settings["tile"] == (0, 16)
    assert "strength" not in settings or settings["strength"] is None


def test_each_mode_has_its_defaults_and_says_what_it_resizes(capsys, files, asked):
    assert run(capsys, files)[0] == 0
    assert asked[-1][2]["strength"] == editing.STRENGTH
    status, out, _ = run(capsys, files, "--variations")
    assert status == 0 and asked[-1][2]["aug_level"] == editing.VARIED
    assert "of 16 x 16 is taken at 8 x 8, for a result of 16 x 16" in out
    assert run(capsys, files, "--upscale", "--colour-fix", "off,2")[0] == 0
    assert asked[-1][1].low_res.shape == (1, 16, 16, 3)
    assert asked[-1][2]["colour_fix"] == ("off", 2.0)
    status, out, _ = run(capsys, files, "--size", "24x12")
    assert status == 0 and "is taken at 24 x 12" in out
    assert asked[-1][1].size == (12, 24)
    # The settings of `sample` come along.
    assert run(capsys, files, "--set", "strength=0.3", "--steps", "5,2")[0] == 0


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--upscale", "--variations"], "--upscale begins from a small picture"),
        (["--upscale", "--strength", "0.5"], "does not go with --strength"),
        (["--variations", "--mask", "MASK"], "does not go with --mask"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--image", "TEXT"], "not_a_picture"),
        (["--mask", "CUT"], "truncated"),
        (["--mask", "BLACK"], "black everywhere"),
        (["--mask", "LARGE"], "the picture's size, 16 x 16"),
        (["--size", "17x16"], "the nearest is 16 x 16"),
        (["--resample", "4"], "got no mask"),
        (["--strength", "1.5"], "strength must be above 0"),
    ],
)
def test_what_cannot_be_is_one_line(capsys, files, asked, argv, named):
    (files / "TEXT").write_text("no picture")
    (files / "CUT").write_bytes((files / "mask.png").read_bytes()[:-30])
    Image.fromarray(0 * MASK).save(files / "BLACK", "PNG")
    Image.fromarray(MASK).resize((32, 16)).save(files / "LARGE", "PNG")
    Image.fromarray(MASK).save(files / "MASK", "PNG")
    status, _, err = run(
        capsys, files, *[files / a if a.isupper() else a for a in argv]
    )
    lines = [line for line in err.splitlines() if "error" in line]
    assert status == 2 and len(lines) == 1 and named in lines[0]


def test_pictures_are_turned_and_laid_on_white(tmp_path):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(PICTURE[:8]).save(turned, exif=exif)
    assert edit.read(str(turned), "--image").shape == (16, 8, 3)
    clear = np.dstack([PICTURE, 255 - MASK])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    pixels = edit.read(str(tmp_path / "clear.png"), "--image")
    assert (pixels[MASK > 0] == 255).all()
    np.testing.assert_array_equal(pixels[MASK == 0], PICTURE[MASK == 0])
    # A mask with a hole in it: the hole is drawn anew.
    hole = np.dstack([0 * PICTURE, 255 - MASK])
    Image.fromarray(hole).save(tmp_path / "hole.png")
    found = np.asarray(edit.shown(edit.read(str(tmp_path / "hole.png"), "--mask")))
    np.testing.assert_array_equal(found, MASK)


def test_sizes_and_rooms_are_parsed():
    assert sampling_flags.size("1536x640") == (640, 1536)
    assert edit.outpaint("64,0, 32,0") == (64, 0, 32, 0)
    for parse, text in (
        (sampling_flags.size, "1536"),
        (sampling_flags.size, "axb"),
        (sampling_flags.size, ""),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match="WIDTHxHEIGHT"):
            parse(text)
    for text in ("1,2,3", "1,2,3,-4", "a,b,c,d"):
        with pytest.raises(argparse.ArgumentTypeError, match="LEFT,TOP"):
            edit.outpaint(text)
