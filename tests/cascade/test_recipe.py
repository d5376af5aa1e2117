import jax
import pytest

from imagen_jax.cascade import recipe
from imagen_jax.diffusion import grids, guidance_weights, solvers

LINEAR, oscillating = guidance_weights.Linear(), guidance_weights.Oscillating
NAN = float("nan")


class Twice(solvers.DDIM):
    calls = 2


def make(**changes):
    values = {"solver": solvers.DDIM(), "steps": 4, **changes}
    return recipe.SamplingRecipe(**values)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"threshold": "hard"}, "threshold"),
        ({"percentile": 1.5}, "percentile"),
        ({"aug_level": -0.1}, "aug_level"),
        ({"threshold_cap": 0.5}, "threshold_cap"),
        ({"grid": grids.by_name("smart27")}, "the grid has 27 steps, got steps 4"),
        ({"w": float("inf")}, "w must be finite"),
        ({"autoguidance": float("nan")}, "autoguidance must be finite"),
        ({"guidance_low": 2.0, "guidance_high": 1.0}, "got 2.0 and 1.0"),
        ({"guidance_low": -1.0}, "0 <= guidance_low"),
        ({"guidance_rescale": 1.5}, "guidance_rescale must be in"),
        ({"apg_eta": -0.5}, "apg_eta must be in"),
        ({"apg_norm": 0.0}, "apg_norm must be > 0"),
        ({"w": None, "apg_eta": 0.0}, "apg_eta of a stage without guidance"),
        ({"w": None, "guidance_schedule": LINEAR}, "linear changes the weight w"),
        ({"guidance_schedule": guidance_weights.Linear(begin=NAN)}, "finite numbers"),
        ({"guidance_schedule": oscillating(first=4)}, "of the 4 steps"),
        ({"guidance_schedule": oscillating(), "solver": Twice()}, "calls .* 2 times"),
    ],
)
def test_a_bad_setting_is_named(changes, named):
    with pytest.raises(ValueError, match=named):
        make(**changes).check()


def test_the_weight_is_traced_and_its_absence_is_not():
    on, other, off = make(w=2.0), make(w=3.0), make(w=None)
    assert jax.tree.structure(on) == jax.tree.structure(other)
    assert jax.tree.structure(on) != jax.tree.structure(off)


def test_an_unknown_solver_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"ancestral.*ddim.*'euler'"):
        recipe.make_solver("euler")
