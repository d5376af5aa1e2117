"""The suite with a painter for a model and a perfect eye for a scorer."""

import collections
import json
import types

import numpy as np
import pytest

from imagen_jax.data import emoji
from imagen_jax.evaluation import composition, composition_suite

NUM, SIZE = 48, 64
SCENES = composition_suite.prompts(NUM, 0)
REAL = {scene.caption: emoji.render(scene, SIZE) for scene in SCENES}
BLANK = np.full((SIZE, SIZE, 3), 255, np.uint8)
RECORDED = {"identity": (999, 1000), "right": (998, 1000)}


class Eye:
    """Stands for a scorer without error."""

    def look(self, pictures):
        known = {REAL[scene.caption].tobytes(): scene for scene in SCENES}
        nothing = composition.Scene((), "white")
        return [
            composition.Scene(
                tuple(composition.Seen(*placed, 0.99) for placed in scene.placed),
                scene.background,
            )
            if (scene := known.get(picture.tobytes()))
            else nothing
            for picture in pictures
        ]


class Painter:
    """Stands for a model: paints the true picture, or blanks; may be interrupted."""

    def __init__(self, true=True, most=10**9):
        self.true, self.most, self.painted, self.seeds = true, most, [], []
        stage = types.SimpleNamespace(resolution=SIZE)
        self.cascade = types.SimpleNamespace(stages=(stage,))

    def sample(self, captions, *, seed, **settings):
        if len(self.painted) + len(captions) > self.most:
            raise KeyboardInterrupt
        self.painted += captions
        self.seeds.append(seed)
        pictures = [REAL[c] if self.true else BLANK for c in captions]
        return types.SimpleNamespace(images=np.stack(pictures))


def run(painter, **settings):
    return composition_suite.run(painter, Eye(), RECORDED, num=NUM, **settings)


def test_real_pictures_reach_the_ceiling():
    report = run(Painter())
    names = [row.name for row in report.rows]
    assert names == [
        "background", "single object", "two objects with relation", "two objects",
        "counts", "sizes", "paraphrased", "all",
    ]  # fmt: skip
    assert all(row.right == row.ceiling == row.drawn for row in report.rows)
    assert not report.failures


def test_blank_pictures_are_all_wrong_and_shown():
    report = run(Painter(true=False))
    by_name = {row.name: row for row in report.rows}
    white = sum(scene.background == "white" for scene in SCENES)
    assert by_name.pop("background").right == white
    assert all(row.right == 0 and row.ceiling == row.drawn for row in by_name.values())
    assert len(report.failures) == NUM
    assert report.sheet().size[0] > 800
    assert "nothing" in report.failures[0][2]


def test_rows_count_the_prompts_they_name():
    by_name = {row.name: row.drawn for row in run(Painter()).rows}
    kinds = collections.Counter(scene.kind for scene in SCENES)
    assert by_name["all"] == by_name["background"] == NUM
    assert by_name["single object"] == kinds["single"]
    assert by_name["two objects with relation"] == kinds["relation"]
    assert by_name["two objects"] == kinds["and"]
    assert by_name["counts"] == kinds["count"]
    assert 0.2 * NUM < by_name["paraphrased"] < 0.8 * NUM


def test_the_report_is_a_table_and_plain_json():
    report = run(Painter())
    table = json.loads(json.dumps(report.table()))
    row = table["rows"]["all"]
    assert row["share"] == 1.0 and row["interval_95"][0] < 1.0
    text = str(report)
    assert "95 % interval" in text and "ceiling" in text
    assert "identity 99.90%" in text and "1,000" in text


def test_prompts_are_held_out_fixed_and_of_every_kind():
    assert composition_suite.prompts(NUM, 0) == SCENES
    assert composition_suite.prompts(NUM, 1) != SCENES
    assert all(emoji.is_heldout(scene.kind, scene.claim) for scene in SCENES)
    kinds = collections.Counter(s.kind for s in composition_suite.prompts(600, 0))
    assert sum(kinds.values()) == 600 and min(kinds.values()) >= 100


def test_too_few_prompts_are_refused():
    with pytest.raises(ValueError, match="num must be >="):
        composition_suite.prompts(3, 0)


def test_prompts_do_not_all_get_the_same_noise():
    painter = Painter()
    run(painter)
    assert len(set(painter.seeds)) == len(painter.seeds) > 1


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Painter(most=NUM // 2), out=tmp_path, identity="m")
    again = Painter()
    steps = []
    report = run(
        again, out=tmp_path, identity="m", progress=lambda done, n: steps.append(done)
    )
    assert 0 < len(again.painted) <= NUM // 2 + composition_suite.CHUNK
    assert report.rows == run(Painter()).rows
    assert steps == sorted(steps) and steps[-1] == NUM
    run(unused := Painter(most=0), out=tmp_path, identity="m")
    assert not unused.painted


@pytest.mark.parametrize("change", [{"identity": "n"}, {"guidance": 3.0}, {"seed": 1}])
def test_pictures_of_something_else_are_refused(tmp_path, change):
    run(Painter(), out=tmp_path, identity="m")
    with pytest.raises(ValueError, match="another model, prompts or settings"):
        run(Painter(), out=tmp_path, **{"identity": "m", **change})
