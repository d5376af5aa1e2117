import importlib.util

import pytest

from imagen_jax.training import profiler


@pytest.mark.parametrize("steps", [1, 2])
def test_a_profile_holds_the_steps_asked_for(tmp_path, monkeypatch, steps):
    events = []
    monkeypatch.setattr(
        profiler.jax.profiler, "start_trace", lambda f: events.append(("start", f))
    )
    monkeypatch.setattr(profiler.jax.profiler, "stop_trace", lambda: events.append(1))
    with profiler.Window(str(tmp_path), first=3, steps=steps) as window:
        for step in range(1, 9):
            window.at(step, {})
            events.append(f"step {step}")
    inside = [f"step {step}" for step in range(3, 3 + steps)]
    start = events.index(("start", str(tmp_path / "profile")))
    assert events[start + 1 : events.index(1)] == inside
    assert len(events) == 8 + 2


def test_a_run_that_ends_inside_the_window_still_has_its_profile(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(profiler.jax.profiler, "start_trace", events.append)
    monkeypatch.setattr(
        profiler.jax.profiler, "stop_trace", lambda: events.append("stop")
    )
    with profiler.Window(str(tmp_path), first=2, steps=100) as window:
        window.at(2, {})
    assert events == [str(tmp_path / "profile"), "stop"]


def test_it_is_refused_where_the_tpus_profiler_would_crash(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for asked, backend in (("cpu", "cpu"), ("", "tpu"), (None, "tpu")):
        profiler.check(asked, backend)
    for asked in ("", None):
        with pytest.raises(ValueError, match="Set JAX_PLATFORMS=gpu"):
            profiler.check(asked, "gpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    profiler.check("", "cpu")
