import dataclasses
import json

import pytest

from imagen_jax.cascade import recipe, settings
from imagen_jax.diffusion import solvers

NAMES = ("base", "up")


@pytest.fixture
def recipes():
    return (
        recipe.SamplingRecipe(solver=solvers.Ancestral(gamma=0.5), steps=4, w=2.0),
        recipe.SamplingRecipe(solver=solvers.DDIM(), steps=2, w=None),
    )


def test_one_value_is_for_all_stages_and_several_are_one_a_stage(recipes):
    one, other = settings.changed(recipes, {"steps": 3, "guidance": (5, None)})
    assert (one.steps, other.steps) == (3, 3)
    assert (one.w, other.w) == (5.0, None)  # None keeps what is there


def test_whole_numbers_become_floats_where_floats_are_traced(recipes):
    (one, _) = settings.changed(recipes, {"guidance": 5, "gamma": 1})
    assert isinstance(one.w, float) and isinstance(one.solver.gamma, float)
    assert isinstance(settings.changed(recipes, {"steps": 3})[0].steps, int)


def test_a_solvers_parameter_goes_to_the_stages_whose_solver_has_it(recipes):
    one, other = settings.changed(recipes, {"gamma": 0.1})
    assert one.solver == solvers.Ancestral(gamma=0.1) and other.solver == solvers.DDIM()
    with pytest.raises(ValueError, match="DDIM has no setting 'gamma'"):
        settings.changed(recipes, {"gamma": (0.1, 0.1)})


def test_a_solver_of_the_same_name_keeps_its_parameters(recipes):
    kept, new = settings.changed(recipes, {"solver": "ancestral"})
    assert kept.solver.gamma == 0.5 and new.solver == solvers.Ancestral()
    both = settings.changed(recipes, {"gamma": 0.1, "solver": "ancestral"})
    assert [r.solver.gamma for r in both] == [0.1, 0.1]


def test_a_recipe_is_told_whole_and_read_back(recipes):
    """Every field, solver's parameters included, through JSON."""
    plain = json.loads(json.dumps([settings.plain(r) for r in recipes]))
    said = {"guidance" if f.name == "w" else f.name for f in dataclasses.fields(recipe.SamplingRecipe)}  # fmt: skip # noqa: E501
    assert set(plain[0]) == said
    assert plain[0]["solver"] == {"name": "ancestral", "gamma": 0.5}
    blank = (
        recipe.SamplingRecipe(
            solver=solvers.DDIM(), steps=9, threshold="none", w=7.0, aug_level=0.9
        ),
    ) * 2
    assert settings.from_plain(blank, NAMES, plain) == recipes


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"guidence": 1}, "stage base has no setting 'guidence'.*'guidance'"),
        ({"stage": "bse"}, r"stages are \['base', 'up'\], got 'bse'"),
        (
            {"solver": {"name": "ancestral", "gama": 1}},
            "no 'gama'; did you mean 'gamma",
        ),
        ({"solver": {"gamma": 1}}, "solver must have a name"),
        ({"steps": "many"}, "steps must be a number, got 'many'"),
        ({"threshold": 3}, "threshold must be a name, got 3"),
        ({"aug_level": 2}, "aug_level"),
        ([], "a stage must be an object"),
    ],
)
def test_a_bad_recipe_is_named(recipes, stage, named):
    with pytest.raises(ValueError, match=named):
        settings.from_plain(recipes, NAMES, [stage])


def test_more_stages_than_the_model_has_are_refused(recipes):
    with pytest.raises(ValueError, match="in place 2"):
        settings.from_plain(recipes, NAMES, [{}, {}, {}])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "is no JSON file"),
        ("[]", "must be an object"),
        (
            '{"stages": [], "stagess": 1}',
            "unknown key 'stagess'; did you mean 'stages'",
        ),
    ],
)
def test_a_bad_recipe_file_is_named(tmp_path, text, named):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=named):
        settings.read(path)


def test_how_guidance_is_goes_to_the_stages_that_are_guided(recipes):
    asked = {"guidance_rescale": 0.7, "guidance_schedule": "linear:2"}
    one, other = settings.changed(recipes, asked)
    assert one.guidance_rescale == 0.7 and one.guidance_schedule.begin == 2.0
    assert other == recipes[1]
    # Guided by the same call, or told each for itself.
    one, other = settings.changed(recipes, {"guidance_high": 3, "guidance": (1, 2)})
    assert one.guidance_high == other.guidance_high == 3.0
    with pytest.raises(ValueError, match="apg_eta of a stage without guidance"):
        settings.changed(recipes, {"apg_eta": (0.0, 0.0)})
    with pytest.raises(ValueError, match="apg_eta of a stage without guidance"):
        settings.changed(recipes[1:], {"apg_eta": 0.0})


def test_off_is_none_where_there_is_none(recipes):
    one, other = settings.changed(recipes, {"guidance": ("off", 2.0)})
    assert (one.w, other.w) == (None, 2.0)
    with pytest.raises(ValueError, match="aug_level must be a number, got 'off'"):
        settings.changed(recipes, {"aug_level": "off"})
