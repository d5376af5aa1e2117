import numpy as np
import pytest

from imagen_jax.data import shapes
from imagen_jax.evaluation import shapes_checker


def scenes(count, seed=0):
    return [shapes.scene(seed, i, shapes.SPLITS[i % 2]) for i in range(count)]


def pair(first, relation, second, seed=0):
    return shapes.place_pair(
        shapes.order.Draw(seed, 0),
        shapes.Thing(*first.split()),
        relation,
        shapes.Thing(*second.split()),
    )


@pytest.mark.parametrize("resolution,count", [(16, 1200), (32, 500), (256, 60)])
def test_true_pictures_are_right(resolution, count):
    drawn = scenes(count)
    right = shapes_checker.fraction_right(
        [shapes.render(scene, resolution) for scene in drawn],
        [scene.caption for scene in drawn],
    )
    assert right >= 0.995


def other(draw, options, one):
    return draw.choose([option for option in options if option != one])


def nearly(scene, draw):
    """A caption that differs from the true one in a single word."""
    claim = shapes_checker.parse(scene.caption)
    things = [list(thing) for thing in claim.things]
    relation = claim.relation
    change = draw.below(3 if relation else 2)
    thing = draw.choose(things)
    if change == 0:
        thing[0] = other(draw, tuple(shapes.COLORS), thing[0])
    elif change == 1:
        thing[1] = other(draw, shapes.SHAPES, thing[1])
    else:
        relation = other(draw, shapes.RELATIONS, relation)
    things = [shapes.Thing(*thing) for thing in things]
    if relation is None:
        return str(things[0])
    return shapes.pair_caption(things[0], relation, things[1])


@pytest.mark.parametrize("resolution,count", [(16, 600), (32, 200)])
def test_one_wrong_word_is_noticed(resolution, count):
    draw = shapes.order.Draw(1, 1)
    for scene in scenes(count, seed=5):
        caption = nearly(scene, draw)
        image = shapes.render(scene, resolution)
        assert not shapes_checker.check_shapes(image, caption), (scene.caption, caption)


def test_equivalent_captions_are_right():
    image = shapes.render(pair("red circle", "left of", "blue cross"), 16)
    assert shapes_checker.check_shapes(image, "a blue cross right of a red circle")
    assert not shapes_checker.check_shapes(image, "a blue cross left of a red circle")
    image = shapes.render(pair("red circle", "below", "red cross"), 16)
    assert shapes_checker.check_shapes(image, "a red cross above a red circle")


def test_missing_and_extra_objects_are_wrong():
    scene = pair("red circle", "left of", "blue cross")
    alone = shapes.render(scene._replace(placed=scene.placed[:1]), 16)
    assert not shapes_checker.check_shapes(alone, scene.caption)
    assert shapes_checker.check_shapes(alone, "a red circle")
    both = shapes.render(scene, 16)
    verdict = shapes_checker.check_shapes(both, "a red circle")
    assert not verdict and "1 objects expected, 2 seen" in verdict.reason


def test_a_faint_third_object_is_wrong():
    scene = pair("red circle", "left of", "blue cross")
    image = shapes.render(scene, 32).astype(float)
    ghost = shapes.Placed(shapes.Thing("white", "square"), 0.5, 0.85, 0.13)
    image += 0.45 * (
        shapes.render(scene._replace(placed=(ghost,)), 32) - np.array(shapes.BACKGROUND)
    )
    image = np.clip(image, 0, 255).astype(np.uint8)
    assert not shapes_checker.check_shapes(image, scene.caption)


def degraded(image, kind, rng):
    x = image.astype(np.float32)
    if kind == "blur":
        ground = np.float32(shapes.BACKGROUND)
        x = np.moveaxis(shapes_checker.soften(np.moveaxis(x - ground, -1, 0)), 0, -1)
        x = x + ground
    elif kind == "noise":
        x = x + 12 * rng.standard_normal(x.shape)
    elif kind == "faded":
        x = 0.92 * x + 8
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["blur", "noise", "faded"])
@pytest.mark.parametrize("resolution", [16, 32])
def test_soft_noisy_and_faded_pictures_are_right(kind, resolution):
    rng = np.random.default_rng(0)
    drawn = scenes(200, seed=9)
    images = [degraded(shapes.render(s, resolution), kind, rng) for s in drawn]
    right = shapes_checker.fraction_right(images, [s.caption for s in drawn])
    assert right >= 0.98


@pytest.mark.parametrize("fill", [0, 24, 128, 255])
def test_empty_pictures_are_wrong(fill):
    image = np.full((16, 16, 3), fill, np.uint8)
    assert not shapes_checker.check_shapes(image, "a red circle")


def test_pure_noise_is_wrong():
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        assert not shapes_checker.check_shapes(image, "a red circle")


def test_a_blob_that_is_no_shape_is_wrong():
    image = np.full((16, 16, 3), 24, np.uint8)
    image[2:4, 2:14] = shapes.COLORS["red"]
    image[4:14, 12:14] = shapes.COLORS["red"]
    verdict = shapes_checker.check_shapes(image, "a red circle")
    assert not verdict and "unclear" in verdict.reason


def test_the_verdict_says_what_was_seen():
    image = shapes.render(pair("white square", "above", "green triangle"), 32)
    verdict = shapes_checker.check_shapes(
        image, "a white square above a green triangle"
    )
    assert [(s.color, s.shape) for s in verdict.seen] == [
        ("white", "square"),
        ("green", "triangle"),
    ]
    assert verdict.seen[0].y < verdict.seen[1].y


@pytest.mark.parametrize("caption", ["", "a red dog", "a red circle and a blue square"])
def test_other_captions_are_refused(caption):
    with pytest.raises(ValueError, match="must be one of the shapes task"):
        shapes_checker.parse(caption)
