"""A study with a painter for a model and a perfect eye for a scorer."""

import json
import types

import numpy as np
import pytest

from imagen_jax.cascade.samples import Samples
from imagen_jax.data import emoji
from imagen_jax.evaluation import (
    composition,
    composition_suite,
    sampling_study,
    study_report,
)

NUM, SMALL, LARGE = 20, 16, 64
POOL = 24
SCENES = composition_suite.prompts(POOL, 0)[:NUM]
REAL = {scene.caption: emoji.render(scene, LARGE) for scene in SCENES}


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch):
    """Six hundred take a second to make."""
    monkeypatch.setattr(sampling_study, "POOL", POOL)


def reduced(picture):
    small = composition.shrink(picture[None], SMALL)[0]
    return np.rint((small + 1.0) * 127.5).astype(np.uint8)


class Eye:
    """Stands for a scorer without error; what is not a true picture is nothing."""

    task = types.SimpleNamespace(resolution=LARGE)

    def look(self, pictures):
        known = {REAL[scene.caption].tobytes(): scene for scene in SCENES}
        return [
            composition.Scene(
                tuple(composition.Seen(*placed, 0.99) for placed in scene.placed),
                scene.background,
            )
            if (scene := known.get(picture.tobytes()))
            else composition.Scene((), "white")
            for picture in pictures
        ]


class Painter:
    """Stands for a cascade: "bad" pictures are black, the others true; counts calls."""

    stage_names = ("base", "sr")
    recipes = ()

    def __init__(self, most=10**9):
        self.most, self.calls = most, []
        stages = [
            types.SimpleNamespace(
                name=name,
                resolution=side,
                evaluations=lambda recipe: (recipe["steps"] or 1, 0),
            )
            for name, side in zip(self.stage_names, (SMALL, LARGE), strict=True)
        ]
        self.cascade = types.SimpleNamespace(stages=stages)

    def plain(self, recipes):
        return list(recipes)

    def recipes_with(self, **made):
        return ({name: values[0] for name, values in made.items()},)

    def sample(self, captions, *, seed, until, progress, **made):
        assert until == "base" and progress is False
        if len(self.calls) == self.most:
            raise KeyboardInterrupt
        assert all(values[1:] == (None,) for values in made.values())
        steps = made["steps"][0]
        self.calls.append((tuple(captions), seed, steps))
        pictures = [reduced(REAL[c]) * (steps > 1) for c in captions]
        return Samples(tuple(captions), (np.stack(pictures),), ("base",))

    def resume(self, begun, *, until, progress):
        assert until == "sr" and progress is False
        pictures = [
            REAL[c] if np.array_equal(small, reduced(REAL[c])) else 0 * REAL[c]
            for c, small in zip(begun.prompts, begun.stages[0], strict=True)
        ]
        return Samples(
            begun.prompts, (*begun.stages, np.stack(pictures)), self.stage_names
        )


SETTINGS = {
    "many": study_report.Setting({"steps": 9}, "many"),
    "one": study_report.Setting({"steps": 1}, "many"),
}


def study(painter, **changes):
    return sampling_study.Study(
        **{"model": painter, "scorer": Eye(), "num": NUM, "identity": "m", **changes}
    )


def run(painter, **changes):
    return study_report.run(study(painter, **changes), "test", SETTINGS)


def test_every_setting_draws_the_same_prompts_from_the_same_seeds():
    painter = Painter()
    run(painter)
    asked = {
        steps: [call[:2] for call in painter.calls if call[2] == steps]
        for steps in (9, 1)
    }
    assert asked[9] == asked[1]
    assert sum(len(captions) for captions, _ in asked[9]) == NUM
    assert len({seed for _, seed in asked[9]}) == len(asked[9]) > 1


def test_settings_take_turns():
    painter = Painter()
    run(painter)
    assert [steps for *_, steps in painter.calls] == [9, 1] * (len(painter.calls) // 2)


def test_true_pictures_are_right_and_black_ones_wrong_and_saturated():
    report = run(Painter())
    many, one = (report.numbers(name) for name in SETTINGS)
    assert many["share"] == 1.0 and one["share"] == 0.0
    assert many["difference"] == 0.0 and one["difference"] == -1.0
    low, high = one["difference_95"]
    assert low == -1.0 < high < -0.75
    assert many["calls"] == 9 and one["calls"] == 1
    assert one["saturation"] == 1.0 > many["saturation"]
    assert report.true.right.all()
    assert report.true.saturation == many["saturation"]


def test_the_first_chunk_of_a_setting_compiles_and_is_not_timed():
    drawn = study(Painter()).draw({"many": {"steps": 9}})["many"]
    assert np.isnan(drawn.seconds[0]) and np.isfinite(drawn.seconds[1:]).all()
    assert len(drawn.seconds) == -(-NUM // sampling_study.CHUNK)


def test_the_ratio_is_of_chunks_drawn_one_after_the_other():
    report = run(Painter())
    times = {"many": [np.nan, 40.0, 400.0, 20.0], "one": [9.0, 4.0, 40.0, np.nan]}
    for name, seconds in times.items():
        changed = report.drawn[name]._replace(seconds=np.array(seconds))
        report.drawn[name] = changed
    numbers = report.numbers("one")
    assert numbers["times_faster"] == 10.0 and numbers["chunks_timed"] == 2


def test_an_interrupted_study_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Painter(most=3), out=tmp_path)
    again = Painter()
    report = run(again, out=tmp_path)
    assert len(again.calls) == 2 * -(-NUM // sampling_study.CHUNK) - 3
    fresh = run(Painter())
    for name in SETTINGS:
        assert report.drawn[name].verdicts == fresh.drawn[name].verdicts
    run(unused := Painter(), out=tmp_path)
    assert not unused.calls


def test_fewer_prompts_read_the_same_pictures(tmp_path):
    run(Painter(), out=tmp_path)
    fewer = sampling_study.CHUNK
    report = run(unused := Painter(), out=tmp_path, num=fewer)
    assert not unused.calls and len(report.true.right) == fewer


@pytest.mark.parametrize("change", [{"identity": "n"}, {"seed": 1}])
def test_pictures_of_something_else_are_refused(tmp_path, change):
    run(Painter(), out=tmp_path)
    with pytest.raises(ValueError, match="another model, prompts or settings"):
        run(Painter(), out=tmp_path, **change)


def test_the_report_is_a_table_plain_json_and_a_sheet():
    report = run(Painter())
    table = json.loads(json.dumps(report.table()))
    assert table["rows"]["one"]["against"] == "many"
    assert (table["stage"], table["judged"]) == ("base", "sr")
    assert "| one | 0.0% |" in str(report) and "-100.0 (" in str(report)
    assert report.sheet().size[0] > 2 * 96


@pytest.mark.parametrize("num", [0, POOL + 1])
def test_prompts_that_there_are_not_are_refused(num):
    with pytest.raises(ValueError, match="num must be >= 1"):
        study(Painter(), num=num)


def test_a_model_that_the_scorer_cannot_look_at_is_refused():
    painter = Painter()
    painter.cascade.stages.pop()
    with pytest.raises(ValueError, match="larger stage"):
        study(painter)


def test_what_is_compared_with_what_is_drawn():
    for settings in (study_report.of_solvers(), study_report.of_thresholds()):
        assert all(setting.against in settings for setting in settings.values())
