import jax
import pytest

from imagen_jax.cascade import recipe
from imagen_jax.diffusion import grids, guidance_weights, multistep, solvers

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
        ({"solver": multistep.UniPC(order=3), "steps": 2}, "3, the order of UniPC"),
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
    with pytest.raises(ValueError, match=r"ancestral.*ddim.*'dppm'"):
        recipe.make_solver("dppm")


@pytest.mark.parametrize("name", sorted(recipe.SOLVERS))
def test_every_named_solver_is_one_and_refuses_what_it_lacks(name):
    assert isinstance(recipe.make_solver(name), solvers.Solver)
    with pytest.raises(ValueError, match=rf"{name}.*must have settings.*'weight'"):
        recipe.make_solver(name, weight=1.0)


def test_a_solvers_settings_come_from_its_name_and_numbers():
    assert recipe.make_solver("ddim", eta=0.5) == solvers.DDIM(eta=0.5)
    large = recipe.make_solver("ddpm", variance="fixed_large")
    assert large == solvers.Ancestral(gamma=1.0)
    with pytest.raises(ValueError, match=r"fixed_small.*'learned'"):
        recipe.make_solver("ddpm", variance="learned")


def test_numbers_of_solvers_are_traced_and_orders_are_not():
    for name, setting in (("ddim", "eta"), ("heun", "churn"), ("euler", "s_noise")):
        a, b = (recipe.make_solver(name, **{setting: v}) for v in (0.1, 0.2))
        assert jax.tree.structure(a) == jax.tree.structure(b)
    a, b = (recipe.make_solver("unipc", order=p) for p in (2, 3))
    assert jax.tree.structure(a) != jax.tree.structure(b)
