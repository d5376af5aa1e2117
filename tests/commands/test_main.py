"""The command line as a user meets it: one clear line and a status for each mistake."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imagen_jax.commands import main


def run(capsys, *argv):
    try:
        status = main.main([str(a) for a in argv])
    except SystemExit as exit:
        status = exit.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["sample", ""], "must not be empty"),
        (["sample", "dog " * 50], "Shorten"),
        (["sample", "a cat", "--model", "nothing"], "neither a shipped model"),
        (["sample", "a cat", "--steps", "5,5"], "one for each"),
        (["sample", "a cat", "--out", "/proc/nowhere"], "/proc/nowhere"),
        (["train", "--config", "shapes/bse", "--workdir", "w"], "shapes/base"),
        (["params", "--config", "shapes/base", "--config.nme=x"], "name"),
        (["export", "nowhere", "--out", "o"], "config.json"),
        (["plan", "--config", "imagen/base_64", "--topology", "v9:2x2"], "v9:2x2"),
    ],
)
def test_a_mistake_is_one_line_and_a_failing_status(
    capsys, tmp_path, monkeypatch, argv, named
):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *argv)
    lines = [line for line in err.splitlines() if "error" in line]
    assert status == 2 and len(lines) == 1 and named in lines[0], err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("found", "vendor", "plugins", "chosen"),
    [
        (True, "no vendor", [], "cpu"),
        (None, "no vendor", [], None),  # no libtpu
        (True, "no vendor", ["a GPU's"], None),
        (True, "", [], None),  # every device is Google's: a TPU is there
    ],
)
def test_the_tpus_compiler_alone_leaves_the_cpu(
    monkeypatch, tmp_path, found, vendor, plugins, chosen
):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: plugins)
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "vendor").write_text(f"{vendor or main.GOOGLE}\n")
    monkeypatch.setattr(main, "PCI", tmp_path)
    main.leave_absent_tpus()
    assert os.environ.get("JAX_PLATFORMS") == chosen


def test_an_unknown_flag_is_refused(capsys):
    status, _, err = run(capsys, "sample", "a cat", "--guidence", "3")
    assert status == 2 and "--guidence" in err


def test_params_prints_a_total(capsys):
    status, out, _ = run(capsys, "params", "--config", "shapes/base", "--json")
    table = json.loads(out)
    assert status == 0 and table["total"] == sum(table["modules"].values())


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, imagen_jax; "
        "heavy = {'jax', 'flax', 'numpy', 'tensorflow'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """The folder and the modules of a process that drew in float16."""
    out = tmp_path_factory.mktemp("half")
    code = (
        "import json, sys; from imagen_jax.commands import main; "
        f"status = main.main(['sample', 'a red apple', '--out', {str(out)!r}, "
        "'--steps', '2', '--dtype', 'float16']); "
        f"json.dump(list(sys.modules), open({str(out / 'modules.json')!r}, 'w')); "
        "sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return out


def test_sampling_never_loads_tensorflow(half):
    modules = set(json.loads((half / "modules.json").read_text()))
    assert "jax" in modules
    assert not {"tensorflow", "seqio", "grain", "clu"} & modules


def test_the_shipped_model_draws_in_float16(half):
    """A number that is not finite would spread, and be written as black."""
    for name in ("base_16", "sr_64_64", "sr_256_256"):
        pixels = np.asarray(Image.open(half / f"000_{name}.png"), float)
        side = pixels.shape[0] // 4
        red, green, blue = pixels[side:-side, side:-side].mean((0, 1))
        assert red > green + 40 and red > blue + 40, name
        assert pixels[:side].mean() > 60, name


@pytest.mark.slow
def test_sample_writes_every_stage_a_sheet_and_the_settings(capsys, tmp_path):
    argv = ["sample", "a red apple", "two dogs", "--num", 2, "--steps", 2]
    status, out, _ = run(capsys, *argv, "--seed", 3, "--out", tmp_path)
    assert status == 0 and "4 pictures" in out
    settings = json.loads((tmp_path / "settings.json").read_text())
    names = [s["stage"] for s in settings["stages"]]
    assert len(names) == 3 and settings["pictures"][0]["seed"] == 3
    files = sorted(p.name for p in tmp_path.glob("0*.png"))
    assert len(files) == 4 * 3
    last = max(tmp_path.glob("003_*.png"), key=lambda p: Image.open(p).size)
    written = json.loads(Image.open(last).info["imagen_jax"])
    assert written["prompt"] == "two dogs" and written["number"] == 1
    assert Image.open(last).size[0] >= 256
    assert Image.open(tmp_path / "sheet.png").size[0] > 1000

    again = tmp_path / "again"
    run(capsys, "sample", "two dogs", "--num", 1, "--steps", 2, "--seed", 3,
        "--out", again)  # fmt: skip
    (first,) = tmp_path.glob(f"002_{names[0]}_*.png")
    (same,) = again.glob(f"000_{names[0]}_*.png")
    first, same = (np.asarray(Image.open(path), int) for path in (first, same))
    assert np.abs(first - same).max() <= 1


def test_a_damaged_model_is_named(capsys, tmp_path):
    (tmp_path / "model.json").write_text("{")
    status, _, err = run(capsys, "sample", "a cat", "--model", tmp_path)
    assert status == 2 and "model.json is damaged" in err
