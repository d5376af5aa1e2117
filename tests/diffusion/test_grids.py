import numpy as np
import pytest

from imagen_jax.diffusion import grids, schedules
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


@pytest.mark.parametrize("name", sorted(grids.PRESETS))
def test_presets_are_those_of_diffusers(name):
    grid = grids.by_name(name)
    golden = deepfloyd.ABOUT["presets"][name]
    assert places(grid, len(golden)) == golden
    assert grid.length == len(golden)


def test_no_preset_is_missing():
    assert set(deepfloyd.ABOUT["presets"]) == set(grids.PRESETS)


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
    with pytest.raises(ValueError, match=r"must be one of .*'uniform'.*got 'karras'"):
        grids.by_name("karras")
