import numpy as np
import pytest

from imagen_jax.diffusion import grids, schedules, table_grids
from tests import deepfloyd

DISCRETE = schedules.DiscreteSchedule()
COSINE = schedules.CosineSchedule()


def places(grid, steps):
    """The table's steps that a grid takes, its end left out."""
    times = np.asarray(grid(DISCRETE, steps))
    assert (
        times.shape == (steps + 1,) and times[-1] == 0 and np.all(np.diff(times) <= 0)
    )
    return np.floor(times[:-1] * 1000 + 0.01).astype(int).tolist()


@pytest.mark.parametrize("name", sorted(table_grids.PRESETS))
def test_presets_are_those_of_diffusers(name):
    grid = grids.by_name(name)
    golden = deepfloyd.ABOUT["presets"][name]
    assert places(grid, len(golden)) == golden
    assert grid.length == len(golden)


def test_no_preset_is_missing():
    assert set(deepfloyd.ABOUT["presets"]) == set(table_grids.PRESETS)


def test_leading_steps_begin_at_the_first_of_the_table():
    assert places(grids.by_name("leading"), 100) == list(range(990, -1, -10))
    assert places(grids.by_name("leading"), 3) == [666, 333, 0]
    assert places(grids.by_name("leading"), 1000) == list(range(999, -1, -1))


def test_uniform_times_need_no_table():
    times = grids.by_name("uniform")(COSINE, 4)
    np.testing.assert_array_equal(times, [1.0, 0.75, 0.5, 0.25, 0.0])


def test_grids_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="steps of a discrete schedule, got CosineSch"):
        grids.by_name("leading")(COSINE, 10)
    with pytest.raises(ValueError, match="at most the 1000 steps"):
        grids.by_name("leading")(DISCRETE, 1001)
    with pytest.raises(ValueError, match="smart27 has 27 steps, got 30"):
        grids.by_name("smart27")(DISCRETE, 30)
    with pytest.raises(ValueError, match=r"must be one of .*'uniform'.*got 'carras'"):
        grids.by_name("carras")
    with pytest.raises(ValueError, match=r"'karras' must have settings.*\['sigma'\]"):
        grids.by_name("karras", sigma=1.0)
    with pytest.raises(ValueError, match=r"'leading' must have settings of \[\]"):
        grids.by_name("leading", rho=7.0)
    with pytest.raises(ValueError, match="logsnr_min must be below"):
        grids.LogSNR(logsnr_min=1.0, logsnr_max=1.0)
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        grids.Karras(sigma_min=2.0, sigma_max=1.0)


def logsnr_of(grid, schedule, steps, start=1.0):
    return np.asarray(schedule(grid(schedule, steps, start)).logsnr)


def test_equal_steps_of_logsnr_are_equal(exploding):
    # The exploding one's own ends lie within those asked for.
    own = (-2 * np.log(50.0), 2 * np.log(100.0))
    for schedule, low, high in ((COSINE, -9.0, 10.0), (exploding, *own)):
        found = logsnr_of(grids.LogSNR(logsnr_min=-9.0), schedule, 12)
        np.testing.assert_allclose(found, np.linspace(low, high, 13), atol=2e-3)


def test_karras_steps_are_equal_in_the_root_of_sigma():
    found = logsnr_of(grids.by_name("karras"), COSINE, 18)
    along = np.arange(18) / 17
    sigmas = (80 ** (1 / 7) + along * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(np.exp(-found[:-1] / 2), sigmas, rtol=2e-3)
    np.testing.assert_allclose(found[-1], 20.0, rtol=1e-5)


def test_open_ends_are_the_schedules_own():
    wide = {"sigma_min": 0.0, "sigma_max": np.inf}
    found = logsnr_of(grids.by_name("karras", **wide), COSINE, 5)
    np.testing.assert_allclose(found[[0, -2]], [-20.0, 20.0], atol=1e-2)
    wide = {"logsnr_min": -np.inf, "logsnr_max": np.inf}
    found = logsnr_of(grids.by_name("logsnr", **wide), COSINE, 5)
    np.testing.assert_allclose(found[[0, -1]], [-20.0, 20.0], atol=1e-2)


@pytest.mark.parametrize("name", ["uniform", "logsnr", "karras"])
@pytest.mark.parametrize("schedule", [COSINE, DISCRETE], ids=["cosine", "discrete"])
def test_a_late_start_begins_there_and_keeps_the_form(name, schedule):
    grid = grids.by_name(name)
    times = np.asarray(grid(schedule, 10, 0.3))
    # A table of 1000 has no 0.3; its step below is as near as the one above.
    np.testing.assert_allclose(times[0], 0.3, atol=1.1e-3)
    # Of a table, the last call may be at the end already.
    assert np.all(np.diff(times)[:-1] < 0.0) and times[-2] >= times[-1]
    if name == "logsnr" and schedule is COSINE:
        bent = np.diff(logsnr_of(grid, schedule, 10, 0.3), 2)
        np.testing.assert_allclose(bent, 0.0, atol=1e-4)


@pytest.mark.parametrize("name", ["leading", "trailing", "linspace"])
def test_a_late_start_cuts_the_table(name):
    grid = grids.by_name(name)
    times = np.asarray(grid(DISCRETE, 10, 0.5))
    # As the grid of a table of half the length.
    half = np.asarray(grid(schedules.DiscreteSchedule(steps=500), 10)) * 500
    np.testing.assert_allclose(times * 1000, half, atol=1e-3)


def test_a_late_start_draws_a_preset_together():
    grid = grids.by_name("smart27")
    times = np.asarray(grid(DISCRETE, 27, 0.5))
    np.testing.assert_allclose(times, np.asarray(grid(DISCRETE, 27)) / 2, atol=1e-3)
    assert times[0] < 0.5


@pytest.mark.parametrize("name", ["logsnr", "karras"])
@pytest.mark.parametrize("steps", [5, 50, 900])
def test_on_a_table_no_step_is_taken_twice(name, steps):
    inside = {"karras": {"sigma_min": 0.02, "sigma_max": 30.0}, "logsnr": {}}
    grid = grids.by_name(name, **inside[name])
    places = np.asarray(grid(DISCRETE, steps))[:-1] * 1000
    np.testing.assert_allclose(places, np.round(places), atol=1e-3)
    assert np.all(np.diff(np.round(places)) < 0)
    if steps == 5:  # Far apart: they are the nearest ones.
        table = schedules.table(DISCRETE)[0]
        wanted = logsnr_of(grid, COSINE, 5)[:-1]
        nearest = np.abs(table[None] - wanted[:, None]).argmin(1)
        np.testing.assert_allclose(np.round(places), nearest, atol=1)
