import time

import pytest

from imagen_jax.training import clock, watchdog


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_stuck_step_is_told_with_what_the_host_waits_for(tmp_path, capfd):
    said = []

    def told():
        said.append(capfd.readouterr().err)
        return "Stacks" in "".join(said)

    hours = clock.Clock()
    with watchdog.Watchdog(hours, str(tmp_path), seconds=0.2) as watch:
        watch.ended(6)
        watch.ended(7)
        hours.begin_steps()
        with hours.doing("data"):
            until(told)
            until((tmp_path / "stuck" / "host_0.txt").exists)
    line = "".join(said).splitlines()[0]
    assert line.startswith("Watchdog: host 0 of 1: no step has ended for 0 s")
    assert "the last was 7 " in line and " for a batch." in line
    until(lambda: "test_watchdog.py" in (tmp_path / "stuck/host_0.txt").read_text())


def test_steps_that_end_are_not_stuck(tmp_path, capfd):
    with watchdog.Watchdog(clock.Clock(), str(tmp_path), seconds=0.4) as watch:
        for step in range(1, 30):
            watch.ended(step)
            time.sleep(0.02)
    assert capfd.readouterr().err == "" and not list(tmp_path.iterdir())


def test_long_steps_have_longer_until_they_count_as_stuck(tmp_path, capfd, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    watch = watchdog.Watchdog(clock.Clock(), str(tmp_path), seconds=1)
    for step in range(1, 5):
        now[0] += 100
        watch.ended(step)
    assert watch.patience() == pytest.approx(100 * watchdog.STEPS)


def test_no_watchdog_where_none_is_wanted(tmp_path):
    with watchdog.Watchdog(clock.Clock(), str(tmp_path), seconds=0) as watch:
        watch.ended(1)
    assert not watch.running
