import sys
import types

from imagen_jax.cascade import progress_bar
from imagen_jax.cascade.drawing import Moment


def moment(done):
    return Moment(
        stage="up", step=1, steps=2, done=done, total=8, rows=range(1), x=None
    )


def test_a_bar_shows_the_stage_and_the_steps_of_all(capsys):
    with progress_bar.shown(True) as report:
        report(moment(3))
        report(moment(8))
    assert "up: 100%" in capsys.readouterr().err


def test_without_being_asked_there_is_one_where_a_person_is_at_work(monkeypatch):
    monkeypatch.delattr(sys, "ps1", raising=False)
    # A script that runs notebooks elsewhere is not itself one.
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    with progress_bar.shown(None) as report:
        assert report is None
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with progress_bar.shown(None) as report:
        assert callable(report)
    with progress_bar.shown(False) as report:
        assert report is None


def test_a_function_is_told_itself():
    with progress_bar.shown(print) as report:
        assert report is print
