"""Acceptance: parts in processes of their own, one JSON and one page of them."""

import argparse
import json
import os
import pathlib
import subprocess
import sys

import pytest

from imagen_jax.acceptance import page, parts
from imagen_jax.commands import accept, main
from tests.end_to_end import drill

ROOT = pathlib.Path(__file__).parents[2]


def arguments(folder):
    parser = argparse.ArgumentParser()
    accept.add_arguments(parser)
    return parser.parse_args([f"--out={folder}", "--minutes=5"])


def test_a_part_runs_in_a_process_and_tells_what_it_found(tmp_path):
    found = accept.attempt(tmp_path, "machine", arguments(tmp_path))
    assert found["passed"] and found["device"] == "cpu" and found["minutes"] > 0
    # One that passed is not run again.
    assert accept.finished(tmp_path, "machine") == found


def test_a_part_that_breaks_is_a_failure_with_its_last_line(tmp_path):
    found = accept.attempt(tmp_path, "no_such_part", arguments(tmp_path))
    assert not found["passed"] and "no_such_part" in found["error"]
    assert accept.finished(tmp_path, "no_such_part") is None


def test_every_part_is_tried_and_a_failure_is_the_status(tmp_path, monkeypatch, capsys):
    told = {name: {"passed": True, "minutes": 0.1} for name in parts.PARTS}
    told["resume"] = {"passed": False, "error": "<it> broke"}
    monkeypatch.setattr(accept, "attempt", lambda folder, name, args: told[name])
    assert main.main(["accept", "--out", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "resume: FAILED: <it> broke" in out and "samples: passed" in out
    assert json.loads((tmp_path / "acceptance.json").read_text()) == told
    written = (tmp_path / "acceptance.html").read_text()
    assert "&lt;it&gt; broke" in written and "<it>" not in written
    told["resume"] = {"passed": True}
    assert main.main(["accept", "--out", str(tmp_path)]) == 0


def test_the_page_shows_pictures_only_where_there_are_some():
    good = {"samples": {"passed": True, "all": 0.9375}}
    assert "0.9375" in page.page(good, "s.png") and 'src="s.png"' in page.page(
        good, "s.png"
    )
    bad = {"samples": {"passed": False, "error": "none"}}
    assert "<img" not in page.page(bad, "s.png")
    assert "failed" in page.page(bad, "s.png")


def test_steps_are_read_from_whole_lines_of_the_log(tmp_path):
    assert parts.steps_logged(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 4}\n{"st')
    assert parts.steps_logged(tmp_path) == 4


def test_several_hosts_need_a_folder_that_all_see(tmp_path, capsys):
    flags = ["--out", str(tmp_path), "--distributed"]
    assert main.main(["accept", *flags]) == 2
    assert "--shared is required on several hosts" in capsys.readouterr().err


@pytest.mark.slow
def test_two_hosts_kill_a_run_and_go_on(tmp_path):
    pod = [sys.executable, str(ROOT / "launch" / "local_pod.py"), "--hosts=2", "--"]
    host = [sys.executable, "-m", "tests.acceptance.resuming"]
    subprocess.run(
        [*pod, *host, str(tmp_path / "shared"), str(tmp_path / "resume.json")],
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        cwd=ROOT, check=True, timeout=300,
    )  # fmt: skip
    found = json.loads((tmp_path / "resume.json").read_text())
    assert found["passed"] and found["bit_for_bit"]
    assert parts.KILL_AFTER <= found["killed_at_step"] < drill.STEPS
