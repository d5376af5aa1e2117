import dataclasses

import numpy as np
import pytest

from imagen_jax.serving import asking, programs
from tests import compiling

ASKED = asking.Asked(prompt="a red cat", stages=({"steps": 2}, {"steps": 2}))


def steps(number):
    return dataclasses.replace(ASKED, stages=({"steps": number}, {"steps": 2}))


def test_other_prompts_seeds_and_weights_are_of_one_kind(model):
    kept = programs.Programs(model, 1)
    assert not kept.make_room(ASKED)
    for change in (
        {"prompt": "a dog", "negative": "a cat", "seed": 5},
        {"stages": ({"steps": 2, "guidance": 7.0}, {"steps": 2, "aug_level": 0.5})},
    ):
        assert not kept.make_room(dataclasses.replace(ASKED, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"num": 2},
        {"stages": ({"steps": 3}, {"steps": 2})},
        {"stages": ({"steps": 2, "solver": "euler"}, {"steps": 2})},
        {"stages": ({"steps": 2, "threshold": "none"}, {"steps": 2})},
        {"picture": np.zeros((16, 16, 3), np.uint8)},
    ],
)
def test_what_is_compiled_anew_is_of_another(model, change):
    kept = programs.Programs(model, 1)
    kept.make_room(ASKED)
    assert kept.make_room(dataclasses.replace(ASKED, **change))


def test_beyond_the_most_all_are_forgotten_and_compiled_again(model):
    kept = programs.Programs(model, 2)

    def compiled(asked):
        with compiling.watched() as found:
            full = kept.make_room(asked)
            asking.draw(model, asked, lambda moment: None)
        return full, bool(found)

    assert compiled(steps(2))[0] is compiled(steps(3))[0] is False
    assert compiled(steps(2)) == compiled(steps(3)) == (False, False)
    assert compiled(steps(4)) == (True, True)
    assert compiled(steps(2)) == (False, True)  # Two are kept again.
    assert compiled(steps(4)) == (False, False)
