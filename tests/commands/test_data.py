"""`imagen-jax data`, as it is typed."""

import json

import pytest
from PIL import Image

from imagen_jax.commands import main
from imagen_jax.data import picture_task
from tests.data import making


@pytest.fixture
def photos(tmp_path):
    picture_task.shards_of.cache_clear()
    pictures = [making.picture(i) for i in range(20)]
    pictures[3] = pictures[3][:-20]
    return making.write(tmp_path / "photos", "folder", pictures)


def test_check_names_what_is_broken_and_marks_it(photos, capsys):
    assert main.main(["data", "check", photos]) == 1
    out = capsys.readouterr().out
    assert "00003.png" in out or "record 3" in out
    assert "1 truncated" in out and "19 of 20 records are sound." in out
    picture_task.shards_of.cache_clear()
    assert main.main(["data", "check", photos, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["records"] == 20 and told["bad"] == {"truncated": 1}


def test_stats_are_of_the_sound_records(photos, capsys):
    main.main(["data", "check", photos])
    capsys.readouterr()
    picture_task.shards_of.cache_clear()
    assert main.main(["data", "stats", photos, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["records"] == 20 and told["sound"] == 19
    assert told["bad"] == {"truncated": 1}
    sides = [min(70 + i * 7 % 50, 70 + i * 11 % 50) for i in range(20) if i != 3]
    assert told["shorter side"]["min"] == min(sides)
    assert told["tokens a caption"]["max"] == len(making.caption(10)) + 1
    assert main.main(["data", "stats", photos]) == 0
    assert "shorter side: min" in capsys.readouterr().out


@pytest.mark.parametrize("to", making.FORMATS)
def test_convert_keeps_every_byte_and_goes_on(photos, tmp_path, capsys, to):
    main.main(["data", "check", photos])
    picture_task.shards_of.cache_clear()
    out = tmp_path / "out"
    argv = ["data", "convert", photos, "--to", to, "--out", str(out)]
    argv += ["--shard_size", "8"]
    assert main.main(argv) == 0
    assert "19 records" in capsys.readouterr().out
    files = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}
    assert main.main(argv) == 0
    unchanged = {p: p.stat().st_mtime_ns for p in files if p.name != "conversion.json"}
    assert unchanged.items() <= files.items()
    settings = picture_task.PictureSettings(path=str(out), heldout=0.0)
    source = picture_task.source(settings, "train", resolution=16, batch_size=1)
    found = {}
    for number in range(len(source.contents)):
        record = source.record(number)
        found[record.picture] = picture_task.records.texts(record)
    assert found == {
        making.picture(i): [making.caption(i)] for i in range(20) if i != 3
    }
    assert main.main([*argv[:-1], "5"]) == 2
    assert "holds another conversion" in capsys.readouterr().err


def test_preview_is_a_sheet_of_what_a_model_sees(photos, tmp_path, capsys):
    main.main(["data", "check", photos])
    picture_task.shards_of.cache_clear()
    out = tmp_path / "sheet.png"
    argv = ["data", "preview", photos, "--out", str(out), "--num", "8"]
    assert main.main([*argv, "--resolution", "32"]) == 0
    assert "8 of 19 pictures" in capsys.readouterr().out
    with Image.open(out) as sheet:
        assert sheet.width > 8 * 128 and sheet.height > 128


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["check", "absent"], "has no tar, parquet"),
        (["convert", "PHOTOS"], "--to FORMAT and --out FOLDER are required"),
        (["preview", "PHOTOS", "--min_side", "5000"], "none of 20 records"),
    ],
)
def test_mistakes_are_one_line(photos, capsys, argv, named):
    argv = [photos if word == "PHOTOS" else word for word in argv]
    assert main.main(["data", *argv]) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("imagen-jax: error")]
    assert len(lines) == 1 and named in lines[0]
