"""The table and the plot of runs whose folders were written by hand."""

import json
import sys
import types

import pytest
from etils import epath

import shell
import sweep_results
import sweep_runs


def a_run(folder, name, steps=10):
    return sweep_runs.Run(
        name=name, slug=name, values={"seed": name[-1]}, steps=steps,
        workdir=str(folder / name), command=[],
    )  # fmt: skip


def log(folder, name, *records):
    (folder / name).mkdir(exist_ok=True)
    lines = [json.dumps(record) for record in records]
    # A kill cut the last line off.
    (folder / name / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 9']))


def test_minutes_leave_out_what_was_not_training(tmp_path):
    """Rates are of the steps since the line before; evaluations have none."""
    log(
        tmp_path, "s1", {"step": 60, "steps_per_second": 2.0},
        {"step": 60, "fid": 3.0}, {"step": 120, "steps_per_second": 1.0},
    )  # fmt: skip
    found = sweep_results.read(a_run(tmp_path, "s1"), str(tmp_path), "fid", "min")
    assert found.minutes == pytest.approx((60 / 2 + 60 / 1) / 60)
    assert found.curve == [(60, 3.0)] and found.metrics == {"steps_per_second", "fid"}


def test_what_was_not_finite_is_no_best(tmp_path):
    log(tmp_path, "s1", {"step": 1, "loss": None}, {"step": 2, "loss": 4.0})
    found = sweep_results.read(a_run(tmp_path, "s1"), str(tmp_path), "loss", "min")
    assert (found.last, found.best, found.best_step) == (4.0, 4.0, 2)


def test_only_whole_checkpoints_count(tmp_path):
    checkpoints = tmp_path / "s1" / "checkpoints"
    for name in ("3", "7", "9.orbax-checkpoint-tmp"):
        (checkpoints / name).mkdir(parents=True)
    assert sweep_results.saved_step(str(tmp_path / "s1")) == 7
    run = a_run(tmp_path, "s1", steps=7)
    assert sweep_results.state_of(run, 7, tmp_path / "s1") == "finished"
    assert sweep_results.state_of(run, 6, tmp_path / "s1") == "unfinished"
    (tmp_path / "s1" / "exit_status").write_text("2\n")
    assert sweep_results.state_of(run, 6, tmp_path / "s1") == "failed"


def test_a_bucket_that_cannot_be_read_is_one_line(monkeypatch):
    def refuse(self):
        raise RuntimeError("no\nsuch host")

    path = type(epath.Path("somewhere"))
    monkeypatch.setattr(path, "exists", refuse)
    with pytest.raises(shell.LaunchError, match=r"cannot read .*: no such host"):
        sweep_results.saved_step("somewhere")


class Axis:
    """Stands in for matplotlib's, which the tests do not require."""

    def __init__(self):
        self.drawn = {}

    def plot(self, steps, values, label, marker):
        self.drawn[label] = (steps, values)

    def set(self, **labels):
        self.labels = labels

    def grid(self, *_, **__):
        pass

    def legend(self, **_):
        self.drawn["legend"] = True


def test_every_run_with_the_metric_is_a_curve(tmp_path, monkeypatch):
    axis = Axis()
    figure = types.SimpleNamespace(
        tight_layout=lambda: None,
        savefig=lambda file, format, dpi: file.write(format.encode()),
    )
    pyplot = types.SimpleNamespace(
        subplots=lambda figsize: (figure, axis), close=lambda figure: None
    )
    matplotlib = types.SimpleNamespace(use=lambda name: None, pyplot=pyplot)
    monkeypatch.setitem(sys.modules, "matplotlib", matplotlib)
    log(tmp_path, "s1", {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0})
    runs = [a_run(tmp_path, name) for name in ("s1", "s2")]
    results = [sweep_results.read(r, str(tmp_path), "loss", "min") for r in runs]
    sweep_results.write(results, str(tmp_path), "loss")
    assert axis.drawn == {"s1": ((1, 2), (3.0, 2.0)), "legend": True}
    assert axis.labels == {"xlabel": "step", "ylabel": "loss"}
    assert (tmp_path / "results.png").read_bytes() == b"png"


def test_the_plot_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    log(tmp_path, "s1", {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0})
    results = [sweep_results.read(a_run(tmp_path, "s1"), str(tmp_path), "loss", "min")]
    sweep_results.write(results, str(tmp_path), "loss")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_table_is_there_and_a_line_says_why(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    results = [sweep_results.read(a_run(tmp_path, "s1"), str(tmp_path), "loss", "min")]
    shown = sweep_results.write(results, str(tmp_path), "loss")
    assert "| s1 | 1 | not started | 0 of 10 |  |  |  |  |" in shown
    assert "No plot: it needs `pip install matplotlib`." in capsys.readouterr().err
    assert not (tmp_path / "results.png").exists()
