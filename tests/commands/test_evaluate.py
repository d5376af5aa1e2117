"""The scorer from training to its own suite, and the mistakes one can make."""

import json
import types

import pytest

from imagen_jax import export, loading
from imagen_jax.commands import main
from imagen_jax.evaluation import study_report
from tests import tiny_cascade


def run(capsys, *argv):
    status = main.main([str(a) for a in argv])
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if "error:" in line]
    return status, captured.out, errors


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """A tiny scorer, barely trained."""
    folder = tmp_path_factory.mktemp("scorer")
    argv = [
        "train", "--config", "emoji/scorer", "--workdir", str(folder / "run"),
        "--config.network.stem_channels=8", "--config.network.channels=8",
        "--config.network.deep_channels=8", "--config.data.batch_size=8",
        "--config.optimizer.warmup_steps=1", "--config.training.steps=2",
        "--config.training.log_every=1", "--config.training.tensorboard=none",
        "--config.training.evaluate_every=2", "--config.training.evaluate_num=20",
    ]  # fmt: skip
    assert main.main(argv) == 0
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert "accuracy" in lines[-2] and "heldout_identity" in lines[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "SCORER_PICTURES", 70)
        argv = ["export", str(folder / "run"), "--out", str(folder / "scorer")]
        assert main.main(argv) == 0
    return folder / "scorer"


@pytest.mark.slow
def test_an_exported_scorer_stands_alone_and_knows_its_accuracy(scorer):
    stored = json.loads((scorer / "scorer.json").read_text())
    assert stored["accuracy"]["right"][1] == 70
    assert str(scorer.parent) not in (scorer / "scorer.json").read_text()
    loaded, recorded = loading.load_scorer(str(scorer))
    assert recorded["background"][1] == 70
    assert loaded.task.module.channels == 8


def test_the_scorer_is_judged_on_held_out_pictures(scorer, capsys, tmp_path):
    status, out, _ = run(
        capsys, "evaluate", "--suite", "scorer", "--scorer", scorer, "--num", 70,
        "--out", tmp_path, "--json",
    )  # fmt: skip
    table = json.loads(out)
    recorded = json.loads((scorer / "scorer.json").read_text())["accuracy"]
    assert status == 0
    assert table["attributes"]["background"]["right"] == recorded["background"][0]
    assert json.loads((tmp_path / "report.json").read_text()) == table
    assert (tmp_path / "failures.png").is_file()


def test_a_scorer_of_other_objects_is_refused(scorer, capsys, tmp_path):
    stored = json.loads((scorer / "scorer.json").read_text())
    stored["names"][0] = stored["names"][0][:-1]
    (tmp_path / "scorer.json").write_text(json.dumps(stored))
    status, _, errors = run(
        capsys, "evaluate", "--suite", "scorer", "--scorer", tmp_path
    )
    assert status == 2 and len(errors) == 1
    assert "other objects or backgrounds" in errors[0] and "emoji/scorer" in errors[0]


@pytest.mark.parametrize("suite", ["solvers", "thresholds"])
def test_a_study_starts_from_the_settings_of_the_flags(capsys, monkeypatch, suite):
    """Up to the drawing, which has tests of its own."""
    asked = []
    eye = types.SimpleNamespace(task=types.SimpleNamespace(resolution=16))

    def begin(study, name, settings, progress):
        asked.append((study, name, settings))
        raise ValueError("this is far enough")

    monkeypatch.setattr(study_report, "run", begin)
    monkeypatch.setattr(loading, "load", lambda name: tiny_cascade.model())
    monkeypatch.setattr(loading, "load_scorer", lambda name: (eye, {}))
    monkeypatch.setattr(loading, "model_hash", lambda name: f"hash of {name}")
    status, _, errors = run(
        capsys, "evaluate", "--suite", suite, "--model", "tiny",
        "--num", 5, "--seed", 3, "--steps", "7,2",
    )  # fmt: skip
    assert status == 2 and "this is far enough" in errors[0]
    ((study, name, settings),) = asked
    assert [recipe.steps for recipe in study.model.recipes] == [7, 2]
    assert (study.num, study.seed, study.identity) == (5, 3, "hash of tiny")
    assert name == suite and len(settings) > 5


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--suite", "composition"], "--model"),
        (["--suite", "scorer", "--scorer", "nowhere"], "no scorer.json"),
        (
            ["--suite", "composition", "--model", "emoji", "--scorer", "nowhere"],
            "no scorer.json",
        ),
    ],
)
def test_a_mistake_is_one_line(capsys, argv, named):
    status, _, errors = run(capsys, "evaluate", *argv)
    assert status == 2 and len(errors) == 1 and named in errors[0]


@pytest.mark.parametrize("num", ["0", "-1"])
def test_no_pictures_are_refused(scorer, capsys, num):
    status, _, errors = run(
        capsys, "evaluate", "--suite", "scorer", "--scorer", scorer, "--num", num
    )
    assert status == 2 and "num must be >= 1" in errors[0]
