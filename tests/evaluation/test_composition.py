import numpy as np
import pytest

from imagen_jax.data import emoji
from imagen_jax.data.emoji_words import Claim, Thing
from imagen_jax.evaluation import composition
from imagen_jax.evaluation.composition import Scene, Seen


def seen(name, x=0.5, y=0.5, side=0.4):
    return Seen(name, x, y, side, 0.99)


def alone(side=0.55, background="white"):
    return Scene((seen("dog", side=side),), background)


def one(size="", background=""):
    return Claim((Thing(1, size, "dog"),), background=background)


def pair(relation="", sizes=("", ""), background=""):
    return Claim(
        (Thing(1, sizes[0], "dog"), Thing(1, sizes[1], "cat")), relation, background
    )


DOG, CAT = seen("dog", x=0.3), seen("cat", x=0.7)


@pytest.mark.parametrize(
    ("scene", "claim", "wrong"),
    [
        (alone(), one(), set()),
        (alone(), Claim((Thing(1, "", "cat"),)), {"identity"}),
        (Scene((), "white"), one(), {"identity", "count"}),
        (Scene((DOG, CAT), "white"), one(), {"identity", "count"}),
        (Scene((DOG, DOG), "white"), one(), {"count"}),
        (Scene((seen(""),), "white"), one(), {"identity"}),
        (Scene((DOG, seen("", x=0.8)), "white"), one(), {"identity", "count"}),
        (alone(background="blue"), one(), {"background"}),
        (alone(background="blue"), one(background="blue"), set()),
        (alone(0.85), one("big"), set()),
        (alone(0.33), one("small"), set()),
        (alone(0.55), one("big"), {"size"}),
        (alone(0.55), one("small"), {"size"}),
        (alone(0.85), one("small"), {"size"}),
        (Scene((DOG,) * 3, "white"), Claim((Thing(3, "", "dog"),)), set()),
        (Scene((DOG,) * 2, "white"), Claim((Thing(3, "", "dog"),)), {"count"}),
        (Scene((DOG, CAT), "white"), pair(), set()),
        (Scene((CAT, DOG), "white"), pair("left of"), set()),
        (Scene((DOG, CAT), "white"), pair("right of"), {"relation"}),
        (Scene((DOG, CAT), "white"), pair("above"), {"relation"}),
        (
            Scene((seen("dog", y=0.3), seen("cat", y=0.7)), "white"),
            pair("above"),
            set(),
        ),
        (
            Scene((DOG._replace(side=0.52), CAT._replace(side=0.3)), "white"),
            pair(sizes=("big", "small")),
            set(),
        ),
        (
            Scene((DOG._replace(side=0.3), CAT._replace(side=0.52)), "white"),
            pair(sizes=("big", "small")),
            {"size"},
        ),
        (
            Scene((DOG, CAT), "white"),
            pair("left of", ("small", "big")),
            {"size"},
        ),
        (
            Scene((DOG,), "pink"),
            pair("left of", ("small", "big"), "blue"),
            {"identity", "count", "relation", "size", "background"},
        ),
    ],
)
def test_exactly_what_is_wrong_is_found_wrong(scene, claim, wrong):
    verdict = composition.check(scene, claim)
    found = {name for name in composition.ATTRIBUTES if getattr(verdict, name) is False}
    assert found == wrong
    assert verdict.right == (not wrong) and verdict.wrong == len(wrong)
    assert bool(verdict.reason) == bool(wrong)


def test_what_is_not_claimed_is_not_judged():
    verdict = composition.check(alone(), one())
    assert verdict.relation is None and verdict.size is None


def test_a_perfect_eye_finds_every_real_scene_right():
    for i in range(400):
        scene = emoji.scene(11, i, "heldout")
        what = Scene(tuple(seen(*placed) for placed in scene.placed), scene.background)
        verdict = composition.check(what, scene.claim)
        assert verdict.right, (scene, verdict)


def test_size_limits_lie_between_the_ranges_of_the_data():
    small, big = composition.SINGLE_LIMITS
    side = {k: v / emoji.LATTICE for k, v in emoji.SINGLE_SIDE.items()}
    assert side["small"] < small < side[""] < big < side["big"]
    ratio = emoji.PAIR_SIDE["big"] / emoji.PAIR_SIDE["small"]
    assert 1.0 < composition.LARGER < ratio


def test_pictures_are_shrunk_by_averages():
    picture = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    small = composition.shrink(picture, 4)
    np.testing.assert_allclose(
        small[0, 1, 2], picture[0, 2:4, 4:6].mean((0, 1)) / 127.5 - 1.0, rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (1, 96, 96, 3), (1, 64, 128, 3)])
def test_pictures_of_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 64"):
        composition.shrink(np.zeros(shape, np.uint8), 64)
