"""Acceptance: parts in processes of their own, one JSON and one page of them."""

import argparse
import json

from imagen_jax.acceptance import page, parts
from imagen_jax.commands import accept, main


def arguments(folder):
    return argparse.Namespace(out=str(folder), minutes=5.0, part=None)


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
