import collections
import json
import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data import emoji, make_sprites, sprites


def scenes(count, split="train", seed=0):
    return [emoji.scene(seed, i, split) for i in range(count)]


def test_scenes_are_a_function_of_seed_and_index():
    assert scenes(50) == scenes(50)
    assert scenes(50) != scenes(50, seed=1)


def test_first_captions_never_change():
    assert [scene.caption for scene in scenes(3)] == [
        "a big flame above a small drum on a blue background",
        "a burger and a tree",
        "a horse left of a ladybug",
    ]
    assert [scene.caption for scene in scenes(2, "heldout")] == [
        "a cat on a blue background",
        "a key on a pink background",
    ]


def test_the_sheet_has_what_the_table_says():
    table = json.loads((sprites.ASSETS / "sprites.json").read_text())
    assert len(table["objects"]) >= 64
    for entry in table["objects"]:
        character = chr(int(entry["code_point"][2:], 16))
        assert unicodedata.name(character) == entry["unicode_name"]
    rows = -(-len(table["objects"]) // table["columns"])
    with Image.open(sprites.ASSETS / "sprites.png") as sheet:
        assert sheet.mode == "RGBA"
        assert sheet.size == (table["columns"] * 128, rows * 128)
    assert "SIL OPEN FONT LICENSE" in (sprites.ASSETS / "OFL.txt").read_text()
    assert (sprites.ASSETS / "sprites.png").stat().st_size < 1_500_000


def test_the_maker_lists_the_objects_of_the_sheet():
    assert tuple(make_sprites.OBJECTS) == sprites.names()


def test_captions_cover_the_grammar_and_fit():
    drawn = scenes(20000) + scenes(5000, "heldout")
    captions = [scene.caption for scene in drawn]
    assert max(len(caption.encode()) for caption in captions) + 1 <= 80
    text = "\n".join(captions)
    for name in sprites.names():
        assert re.search(rf"\b{name}\b", text), name
        assert re.search(rf"\bfour {emoji.plural(name)}\b", text), name
    for background in emoji.BACKGROUNDS:
        assert f"on a {background} background" in text
    for words in (*emoji.RELATIONS, *emoji.NUMBERS, "and", "big", "small"):
        assert re.search(rf"\b{words}\b", text), words


def test_the_longest_possible_caption_fits():
    longest = max(sprites.names(), key=len)
    words = f"a small {longest} right of a small {longest} on a purple background"
    assert len(words.encode()) + 1 <= 80


@pytest.mark.parametrize(
    "name,expected",
    [
        ("star", "stars"),
        ("butterfly", "butterflies"),
        ("monkey", "monkeys"),
        ("fox", "foxes"),
        ("bus", "buses"),
        ("octopus", "octopuses"),
        ("fish", "fish"),
        ("red apple", "red apples"),
        ("house", "houses"),
    ],
)
def test_plurals(name, expected):
    assert emoji.plural(name) == expected


def test_articles():
    assert emoji.indefinite("owl") == "an owl"
    assert emoji.indefinite("unicorn") == "a unicorn"
    assert emoji.indefinite("umbrella") == "an umbrella"
    assert emoji.sized("big", "owl") == "a big owl"


def shown(scene):
    """What a scene shows, read from its layout and caption alone."""
    caption = re.sub(r" on an? \w+ background$", "", scene.caption)
    relation = re.search("left of|right of|above|below| and ", caption)
    if relation and relation.group() != " and ":
        return tuple(placed.name for placed in scene.placed), relation.group() in (
            "left of",
            "right of",
        )
    if relation:
        return frozenset(caption.replace("an ", "a ").split(" and "))
    if caption.startswith(("two", "three", "four")):
        return caption
    return caption, scene.background


def test_heldout_combinations_never_appear_in_training():
    def several(scene):
        return len({placed.name for placed in scene.placed}) > 1

    def sized(scene):
        return "big" in scene.caption or "small" in scene.caption

    train = {shown(s) for s in scenes(30000) if not (several(s) and sized(s))}
    heldout = scenes(3000, "heldout")
    assert len({shown(s) for s in heldout}) > 1000
    for scene in heldout:
        assert shown(scene) not in train, scene.caption


def test_heldout_has_every_kind():
    captions = [scene.caption for scene in scenes(500, "heldout")]
    for word in ("three ", " and ", " above ", "background"):
        assert any(word in caption for caption in captions), word


def test_a_tenth_to_a_seventh_of_each_kind_is_held_out():
    names = sprites.names()
    kinds = {
        "single": [("", n) for n in names],
        "count": [(k, n) for k in (2, 3, 4) for n in names],
        "relation": [(a, "above", b) for a in names[:30] for b in names if a != b],
        "and": [(("", a), ("", b)) for a in names[:30] for b in names if a != b],
    }
    for kind, parts in kinds.items():
        grounds = tuple(emoji.BACKGROUNDS) if kind == "single" else ("white",)
        fates = [emoji.is_heldout(kind, p, b) for p in parts for b in grounds]
        # A kind with few combinations strays by a few per cent.
        assert 0.07 < np.mean(fates) < 0.17, kind


def test_plain_single_objects_are_never_held_out():
    for name in sprites.names():
        assert not emoji.is_heldout("single", ("", name), "white")
        assert not emoji.is_heldout("count", (1, name), "blue")


def test_layouts_say_what_the_caption_says():
    numbers = collections.Counter()
    for scene in scenes(5000):
        caption, placed = scene.caption, scene.placed
        for _, x, y, side in placed:
            assert side / 2 <= min(x, y) and max(x, y) <= 1 - side / 2
        for i, one in enumerate(placed):
            for other in placed[:i]:
                gap = max(abs(one.x - other.x), abs(one.y - other.y))
                assert gap > (one.side + other.side) / 2
        ground = re.search(r"on a (\w+) background", caption)
        assert scene.background == (ground.group(1) if ground else "white")
        number = caption.split()[0]
        if number in emoji.NUMBERS:
            assert len(placed) == emoji.NUMBERS.index(number) + 1
            numbers[number] += 1
        for relation, axis, sign in (
            ("left of", 0, 1),
            ("right of", 0, -1),
            ("above", 1, 1),
            ("below", 1, -1),
        ):
            if f" {relation} " in caption:
                first = next(p for p in placed if said(caption, p.name) == 0)
                second = next(p for p in placed if p is not first)
                offset = (second.x - first.x, second.y - first.y)
                assert offset[axis] * sign > abs(offset[1 - axis])
    assert min(numbers.values()) > 80


def said(caption, name):
    """0 if the object is named first."""
    first, _ = re.split(" left of | right of | above | below ", caption)
    return 0 if re.search(rf"\b{name}$", first) else 1


@pytest.mark.parametrize("low,high", [(32, 128), (64, 256)])
def test_small_pictures_are_shrunk_large_ones(low, high):
    n = high // low
    errors = []
    for scene in scenes(30):
        large, small = (emoji.render(scene, r).astype(float) for r in (high, low))
        shrunk = large.reshape(low, n, low, n, 3).mean((1, 3))
        errors.append(np.abs(shrunk - small).mean())
    # The kernel for small sprites is a little softer than a box: fractions of a level.
    assert np.mean(errors) < 2.0


def test_a_window_is_cut_from_the_whole():
    """Up to one level, or two at steep edges: the resize starts at another place."""
    for scene in scenes(30):
        whole = emoji.render(scene, 256)[64:160, 96:192].astype(int)
        part = emoji.render(scene, 256, (64, 96, 96)).astype(int)
        assert np.abs(part - whole).max() <= 2


def test_edges_have_no_halo():
    """Between two flat colours every pixel lies between them, as does no dark rim."""
    scene = emoji.Scene("", "white", (emoji.Placed("heart", 0.5, 0.5, 0.8),))
    for resolution in (32, 64, 256):
        image = emoji.render(scene, resolution).astype(int)
        # The heart's darkest red has 30 in the red channel's complement at most.
        assert image[..., 0].min() > 150


def test_no_object_vanishes_on_a_background():
    for name in sprites.names():
        for background, color in emoji.BACKGROUNDS.items():
            scene = emoji.Scene("", background, (emoji.Placed(name, 0.5, 0.5, 0.8),))
            image = emoji.render(scene, 32).astype(int)
            differs = np.abs(image - np.asarray(color)).max(-1) > 40
            assert differs.sum() > 90, (name, background)


def test_pictures_have_the_background_in_their_corners():
    image = emoji.render(emoji.Scene("", "blue", ()), 16)
    assert image.dtype == np.uint8 and image.shape == (16, 16, 3)
    assert (image == emoji.BACKGROUNDS["blue"]).all()
