import pytest

from imagen_jax.training import clock, meter


@pytest.fixture
def now(monkeypatch):
    """A time that moves when it is told to: [seconds]."""
    seconds = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(clock.time, "time", lambda: 1e9 + seconds[0])
    return seconds


def test_every_second_of_a_run_is_accounted_for(now):
    time = clock.Clock()
    now[0] += 20
    time.begin_steps()
    now[0] += 5
    with time.doing("other"):
        now[0] += 3
        with time.doing("checkpoints"):
            now[0] += 2
        now[0] += 1
    with time.doing("data"):
        now[0] += 4
    with time.doing("data", hidden=lambda: True):  # the devices had work
        now[0] += 6
    assert time.seconds() == {
        "steps": 11, "data": 4, "checkpoints": 2, "start": 20, "other": 4
    }  # fmt: skip
    lost = time.lost()
    assert lost.pop("goodput") == pytest.approx(11 / 41)
    assert sum(lost.values()) == pytest.approx(41 - 11)
    assert lost["lost_to_interruptions_seconds"] == pytest.approx(0)


def test_what_a_kill_cost_is_neither_training_nor_forgotten(now):
    first = clock.Clock()
    first.begin_steps()
    now[0] += 10
    saved = first.totals()
    now[0] += 7  # steps that a kill undid, and the time when nothing ran
    second = clock.Clock()
    second.go_on(saved)
    now[0] += 1
    second.begin_steps()
    now[0] += 2
    lost = second.lost()
    assert lost["goodput"] == pytest.approx(12 / 20)
    assert lost["lost_to_interruptions_seconds"] == pytest.approx(7)
    assert lost["lost_to_start_seconds"] == pytest.approx(1)


def test_an_error_leaves_the_clock_where_it_was(now):
    time = clock.Clock()
    time.begin_steps()
    with pytest.raises(RuntimeError), time.doing("data"):
        now[0] += 1
        raise RuntimeError
    assert time.kind == "steps" and time.seconds()["data"] == 1


def test_rates_leave_out_what_is_not_training(now):
    time = clock.Clock()
    meters = meter.Meter(time, examples=8, flops=2e12, chips=4, peak=1e12)
    now[0] += 50  # compiling
    time.begin_steps()
    meters.restart()
    for loss in (1.0, 2.0, float("nan")):
        with time.doing("data"):
            now[0] += 0.5
        now[0] += 1.5
        meters.add({"loss": loss})
    with time.doing("other"):
        now[0] += 1000
        got = meters.summary()
    assert got == {
        "loss": 1.5,
        "step_seconds": 2.0,
        "steps_per_second": 0.5,
        "images_per_second": 4.0,
        "images_per_second_per_chip": 1.0,
        "model_tflops_per_second": 1.0,
        "model_tflops_per_second_per_chip": 0.25,
        "data_wait_share": 0.25,
        "utilisation": 0.25,
    }
    assert meters.summary() == {}


def test_an_unknown_chip_has_no_utilisation(now):
    time = clock.Clock()
    meters = meter.Meter(time, examples=8, flops=2e12, chips=4)
    time.begin_steps()
    now[0] += 1
    meters.add({})
    assert "utilisation" not in meters.summary()
