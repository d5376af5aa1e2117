import numpy as np
import pytest

from imagen_jax.cascade import sweep, text_to_image
from tests import tiny_cascade

LEVELS = sweep.Axis("aug_level", (0.0, (0.0, 0.5)), ("0", "0:0.5"))
SEEDS = sweep.Axis("seed", (1, 2), ("1", "2"))


@pytest.fixture(scope="module")
def model():
    return tiny_cascade.model()


def test_a_cell_is_what_its_settings_draw(model):
    cells = {(c, r): s for c, r, s in sweep.sweep(model, LEVELS, SEEDS, prompt="cat")}
    assert list(cells) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    alone = model.sample("cat", seed=2, aug_level=(0.0, 0.5))
    np.testing.assert_array_equal(cells[1, 1].images, alone.images)
    assert cells[1, 1].settings == alone.settings


def test_a_stage_that_no_setting_changes_is_drawn_once(model):
    seen = []
    list(
        sweep.sweep(
            model,
            LEVELS,
            SEEDS,
            prompt="cat",
            progress=lambda m: m.step == m.steps and seen.append(m.stage),
        )
    )
    assert seen == ["base", "up", "up", "base", "up", "up"]


def test_the_stopped_sweep_keeps_finished_cells(model):
    seen = []

    def stop(moment):
        seen.append(moment)
        if len(seen) > 7:
            raise text_to_image.Stop

    assert len(list(sweep.sweep(model, LEVELS, SEEDS, prompt="a", progress=stop))) == 1


@pytest.mark.parametrize(
    ("x", "y", "prompt", "named"),
    [
        (SEEDS, SEEDS, "cat", "two settings, got seed twice"),
        (SEEDS, sweep.Axis("step", (1,), ("1",)), "cat", "did you mean 'steps'"),
        (SEEDS, sweep.Axis("steps", (1, 0), ("1", "0")), "cat", "steps must be >= 1"),
        (SEEDS, LEVELS, " ", "a prompt is required"),
    ],
)
def test_a_bad_sweep_is_named_before_anything_is_drawn(model, x, y, prompt, named):
    with pytest.raises(ValueError, match=named):
        next(sweep.sweep(model, x, y, prompt=prompt))
