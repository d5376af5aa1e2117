import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from imagen_jax.cascade import picture_files, samples

NAMES = ("base", "up")
STAGES = ({"stage": "base", "steps": 4}, {"stage": "up", "steps": 2})


def drawn(base=3, up=3):
    rng = np.random.default_rng(0)
    sizes = (base, 8), (up, 16)
    pictures = [rng.integers(0, 256, (n, s, s, 3), np.uint8) for n, s in sizes if n]
    return samples.Samples(
        ("a", "a", "b"),
        tuple(pictures),
        NAMES[: len(pictures)],
        numbers=(0, 1, 0),
        seeds=(5, 5, 6),
        model="tiny",
        settings=STAGES,
        complete=up == 3,
        size=(16, 24),
    )


def test_files_hold_what_was_drawn_and_how(tmp_path):
    files = picture_files.save(drawn(up=2), tmp_path)
    assert [f.name for f in files] == [
        *("000_base_8.png", "001_base_8.png", "002_base_8.png"),
        *("000_up_16.png", "001_up_16.png"),
    ]
    told = json.loads(Image.open(files[4]).info["imagen_jax"])
    assert told["prompt"] == "a" and told["number"] == 1 and told["seed"] == 5
    assert told["stage"] == "up" and told["stages"] == list(STAGES)
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["stages"] == list(STAGES)
    assert settings["pictures"][2] == {
        "prompt": "b",
        "seed": 6,
        "number": 0,
        "negative": "",
    }
    assert settings["files"][3] == {
        "file": "000_up_16.png",
        "picture": 0,
        "stage": "up",
    }
    assert settings["complete"] is False and len(settings["files"]) == 5
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(("base", "up"), [(0, 0), (2, 0), (3, 0), (3, 2), (3, 3)])
def test_what_was_written_is_read_back(tmp_path, base, up):
    """Pictures that are not drawn yet too."""
    begun = drawn(base, up)
    picture_files.save(begun, tmp_path)
    read = picture_files.read([tmp_path], NAMES)
    assert read.stage_names == begun.stage_names
    for a, b in zip(read.stages, begun.stages, strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("prompts", "numbers", "seeds", "model", "settings", "size"):
        assert getattr(read, name) == getattr(begun, name)


def test_files_of_another_run_in_the_folder_are_left_alone(tmp_path):
    other = dataclasses.replace(drawn(), prompts=("c", "d", "e"))
    picture_files.save(other, tmp_path)
    first = dataclasses.replace(
        drawn(1, 0),
        prompts=("a",),
        numbers=(0,),
        seeds=(5,),
        negatives=("",),
        settings=STAGES[:1],
    )
    picture_files.save(first, tmp_path)
    assert len(list(tmp_path.glob("0*.png"))) == 6
    read = picture_files.read([tmp_path], NAMES)
    assert read.prompts == ("a",) and read.stage_names == ("base",)


def test_chosen_files_are_taken_alone(tmp_path):
    files = picture_files.save(drawn(), tmp_path)
    read = picture_files.read(files[4:], NAMES)
    assert read.prompts == ("a", "b") and read.numbers == (1, 0)
    assert read.stage_names == ("up",) and read.stages[0].shape == (2, 16, 16, 3)


def test_more_than_999_pictures_stay_in_order(tmp_path):
    base = picture_files.save(drawn(up=0), tmp_path)
    (tmp_path / "settings.json").unlink()
    for path, place in zip(base, ("1000", "999", "1001"), strict=True):
        path.rename(tmp_path / f"{place}_base_8.png")
    read = picture_files.read([tmp_path], NAMES)
    assert list(zip(read.prompts, read.numbers, strict=True)) == [
        ("a", 1),
        ("a", 0),
        ("b", 0),
    ]


def test_what_cannot_be_gone_on_from_is_named(tmp_path):
    with pytest.raises(ValueError, match="no PNG of a run"):
        picture_files.read([tmp_path], NAMES)
    plain = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(plain)
    with pytest.raises(ValueError, match=r"plain\.png is no PNG of"):
        picture_files.read([plain], NAMES)
    one, other = tmp_path / "one", tmp_path / "other"
    files = picture_files.save(drawn(), one)
    with pytest.raises(ValueError, match="is of stage 'base'"):
        picture_files.read([one], ("small", "large"))
    changed = dataclasses.replace(drawn(), settings=STAGES[:1])
    with pytest.raises(ValueError, match="another stages entry"):
        picture_files.read([one, *picture_files.save(changed, other)], NAMES)
    with pytest.raises(ValueError, match="a stage that all pictures have"):
        picture_files.read([files[0], files[4]], NAMES)
    (one / "settings.json").write_text("{}")
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        picture_files.read([one], NAMES)
    files[0].write_bytes(files[0].read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"000_base_8\.png is damaged"):
        picture_files.read([files[0]], NAMES)


def test_animations_are_written_where_there_are_frames(tmp_path):
    begun = drawn()
    frames = tuple(np.stack([s // 2, s]) for s in begun.stages)
    moving = dataclasses.replace(begun, frames=frames)
    picture_files.save(moving, tmp_path, moving="gif")
    assert Image.open(tmp_path / "002.gif").n_frames == 4
    assert Image.open(tmp_path / "sheet_animation.gif").n_frames == 4


def test_edited_pictures_cannot_be_gone_on_from(tmp_path):
    """What they were made from is in no file."""
    files = picture_files.save(dataclasses.replace(drawn(), edited=True), tmp_path)
    for path in (tmp_path, files[0]):
        with pytest.raises(ValueError, match="made from a picture that it does not"):
            picture_files.read([path], NAMES)
