import collections

import numpy as np
import pytest

from imagen_jax.data import shapes


def scenes(count, split="train", seed=0):
    return [shapes.scene(seed, i, split) for i in range(count)]


def show(scene):
    """What a two-shape scene shows, however it is said."""
    first, second = (placed.thing for placed in scene.placed)
    horizontal = abs(scene.placed[0].x - scene.placed[1].x) > abs(
        scene.placed[0].y - scene.placed[1].y
    )
    return first, horizontal, second


def test_scenes_are_a_function_of_seed_and_index():
    assert scenes(50) == scenes(50)
    assert scenes(50) != scenes(50, seed=1)


def test_first_captions_never_change():
    assert [scene.caption for scene in scenes(3)] == [
        "a blue square",
        "an orange circle",
        "a green circle left of a green square",
    ]
    assert [scene.caption for scene in scenes(2, "heldout")] == [
        "a red cross left of an orange triangle",
        "a blue cross below a yellow triangle",
    ]


def test_captions_cover_the_grammar():
    words = collections.Counter(
        word for scene in scenes(3000) for word in scene.caption.split()
    )
    for word in (*shapes.COLORS, *shapes.SHAPES, "left", "right", "above", "below"):
        assert words[word] > 50, word
    assert not [s for s in scenes(500) if len(s.caption.encode()) > 79]
    assert any(s.caption.startswith("an orange") for s in scenes(500))
    assert not any("a orange" in s.caption for s in scenes(2000))


def test_heldout_combinations_never_appear_in_training():
    train = {show(s) for s in scenes(20000) if len(s.placed) == 2}
    heldout = {show(s) for s in scenes(2000, "heldout")}
    assert len(heldout) > 150
    assert not train & heldout


def test_equivalent_phrasings_share_their_fate():
    red, blue = shapes.Thing("red", "circle"), shapes.Thing("blue", "square")
    assert shapes.is_heldout(red, "left of", blue) == shapes.is_heldout(
        blue, "right of", red
    )
    assert shapes.is_heldout(red, "below", blue) == shapes.is_heldout(
        blue, "above", red
    )


def test_a_tenth_to_a_seventh_is_held_out():
    fates = [
        shapes.is_heldout(first, relation, second)
        for first in shapes.THINGS
        for second in shapes.THINGS
        if first != second
        for relation in ("left of", "above")
    ]
    assert 0.10 < np.mean(fates) < 0.15


def test_layouts_keep_inside_and_apart():
    for scene in scenes(2000) + scenes(500, "heldout"):
        for _, x, y, radius in scene.placed:
            assert radius <= min(x, y) and max(x, y) <= 1 - radius
        if len(scene.placed) == 2:
            near, far = scene.placed
            gaps = abs(near.x - far.x), abs(near.y - far.y)
            # 10 % between the shapes, and the other axis clearly the lesser.
            assert max(gaps) - near.radius - far.radius > 0.0999
            assert min(gaps) < 0.6 * max(gaps)


@pytest.mark.parametrize("shape", shapes.SHAPES)
@pytest.mark.parametrize("radius", [3.1, 6.4, 50.0])
def test_coverage_has_the_area_of_the_shape(shape, radius):
    area = {"circle": np.pi, "square": 3.24, "triangle": 2.0, "cross": 2.2576}[shape]
    side = int(2 * radius) + 6
    alpha = shapes.coverage(
        shape, side / 2 + 0.3, side / 2 - 0.2, radius, range(side), range(side)
    )
    assert alpha.min() == 0.0 and alpha.max() == 1.0
    np.testing.assert_allclose(alpha.sum(), area * radius**2, rtol=0.02)


def test_small_pictures_are_shrunk_large_ones():
    for scene in scenes(20):
        large, small = (shapes.render(scene, n).astype(float) for n in (256, 32))
        shrunk = large.reshape(32, 8, 32, 8, 3).mean((1, 3))
        assert np.abs(shrunk - small).mean() < 0.5
        assert np.abs(shrunk - small).max() < 16


def test_a_window_is_cut_from_the_whole():
    for scene in scenes(20):
        whole = shapes.render(scene, 64)
        part = shapes.render(scene, 64, (16, 24, 32))
        np.testing.assert_array_equal(part, whole[16:48, 24:56])


def test_colors_are_drawn_as_named():
    scene = shapes.Scene(
        "", (shapes.Placed(shapes.Thing("green", "square"), 0.5, 0.5, 0.3),)
    )
    image = shapes.render(scene, 16)
    assert image.dtype == np.uint8 and image.shape == (16, 16, 3)
    assert tuple(image[8, 8]) == shapes.COLORS["green"]
    assert tuple(image[0, 0]) == shapes.BACKGROUND
