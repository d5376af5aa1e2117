import collections
import itertools
import json
import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data import emoji, emoji_words, make_sprites, sprites
from imagen_jax.text import tokenizer


def scenes(count, split="train", seed=0):
    return [emoji.scene(seed, i, split) for i in range(count)]


def test_scenes_are_a_function_of_seed_and_index():
    assert scenes(50) == scenes(50)
    assert scenes(50) != scenes(50, seed=1)


def test_first_captions_never_change():
    assert [scene.caption for scene in scenes(3)] == [
        "a huge saxophone over a little computer on a blue ground",
        "a little fried egg with a huge automobile against a pink background",
        "a fish left of a rhino",
    ]
    assert [scene.caption for scene in scenes(2, "heldout")] == [
        "3 peacocks",
        "a small fox on a blue background",
    ]


def test_the_sheet_has_what_the_table_says():
    table = json.loads((sprites.ASSETS / "sprites.json").read_text())
    assert len(table["objects"]) >= 200
    for entry in table["objects"]:
        character = chr(int(entry["code_point"][2:], 16))
        assert unicodedata.name(character) == entry["unicode_name"]
    rows = -(-len(table["objects"]) // table["columns"])
    with Image.open(sprites.ASSETS / "sprites.png") as sheet:
        assert sheet.mode == "RGBA"
        assert sheet.size == (table["columns"] * 128, rows * 128)
    assert "SIL OPEN FONT LICENSE" in (sprites.ASSETS / "OFL.txt").read_text()
    assert (sprites.ASSETS / "sprites.png").stat().st_size < 3_000_000


def test_the_maker_lists_the_objects_of_the_sheet():
    assert tuple(make_sprites.OBJECTS) == sprites.names()


def test_captions_cover_the_grammar():
    text = "\n".join(s.caption for s in scenes(30000) + scenes(5000, "heldout"))
    for name in sprites.names():
        assert re.search(rf"\b{name}\b", text), name
        assert re.search(rf"\b{emoji_words.plural(name)}\b", text), name
        for other in sprites.synonyms(name):
            assert re.search(rf"\b{other}\b", text), other
    for background in emoji.BACKGROUNDS:
        assert f"on a {background} background" in text
    templates = (
        *itertools.chain(*emoji_words.NUMBER_WORDS.values()),
        *itertools.chain(*emoji_words.RELATION_WORDS.values()),
        *itertools.chain(*emoji_words.SIZE_WORDS.values()),
        *emoji_words.BACKGROUND_WORDS,
        *emoji_words.FRAMES,
    )
    for template in templates:
        for words in re.split(r"\{\d?\}", template):
            assert words in text, template


def test_no_two_objects_share_a_name():
    names = [n for name in sprites.names() for n in (name, *sprites.synonyms(name))]
    assert len(set(names)) == len(names)
    assert sum(len(sprites.synonyms(name)) > 0 for name in sprites.names()) > 90


def test_captions_fit_and_every_word_has_a_piece():
    pieces = tokenizer.SentencePieceTokenizer(str(tokenizer.ASSETS / "captions.model"))
    captions = [scene.caption for scene in scenes(8000) + scenes(2000, "heldout")]
    ids, _ = pieces.encode(captions, 32)
    assert (ids != tokenizer.UNK).all()


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
        ("pufferfish", "pufferfish"),
        ("sheep", "sheep"),
        ("wolf", "wolves"),
        ("cup of coffee", "cups of coffee"),
        ("puppy", "puppies"),
    ],
)
def test_plurals(name, expected):
    assert emoji_words.plural(name) == expected


def test_articles():
    assert emoji_words.indefinite("owl") == "an owl"
    assert emoji_words.indefinite("unicorn") == "a unicorn"
    assert emoji_words.indefinite("umbrella") == "an umbrella"
    assert emoji_words.indefinite("hourglass") == "an hourglass"
    assert emoji_words.indefinite("ufo") == "a ufo"
    assert emoji_words.sized("big", "owl") == "a big owl"


@pytest.mark.parametrize(
    "claim,words",
    [
        (((1, "", "dog"),), "a dog"),
        (((1, "big", "owl"),), "a big owl"),
        (((3, "", "fox"),), "three foxes"),
        (((1, "", "dog"), (1, "", "cat")), "a dog and a cat"),
    ],
)
def test_plain_words(claim, words):
    things = tuple(emoji.Thing(*thing) for thing in claim)
    assert emoji_words.plain(emoji.Claim(things)) == words
    claim = emoji.Claim(things, background="blue")
    assert emoji_words.plain(claim) == f"{words} on a blue background"


@pytest.mark.parametrize("relation", emoji_words.RELATIONS)
def test_every_way_to_say_a_relation_keeps_who_stands_where(relation):
    opposite = {
        "left of": "right of",
        "right of": "left of",
        "above": "below",
        "below": "above",
    }
    for template in emoji_words.RELATION_WORDS[relation]:
        words = template.format("a dog", "a cat")
        if words.startswith("a cat with a dog"):
            side = {"left of": "left", "right of": "right"}.get(relation, relation)
            assert words.endswith((f"to its {side}", f"{side} it"))
        else:
            assert words.startswith("a dog") and words.endswith("a cat")
        said = {"left", "right", "above", "below"} & set(words.split())
        assert said <= {relation.split()[0]} and opposite[relation] not in words


def shown(scene):
    """What a scene shows, read from its claim; two relations may say the same."""
    things, relation = scene.claim.things, scene.claim.relation
    if scene.kind == "single":
        return things, scene.background
    if scene.kind == "and":
        return frozenset(things)
    names = [thing.name for thing in things]
    if relation in ("right of", "below"):
        names = names[::-1]
        relation = {"right of": "left of", "below": "above"}[relation]
    return things[0].number, tuple(names), relation


def test_heldout_combinations_never_appear_in_training():
    train = {shown(s) for s in scenes(30000)}
    heldout = scenes(3000, "heldout")
    assert len({shown(s) for s in heldout}) > 1000
    for scene in heldout:
        assert shown(scene) not in train, scene.caption


def test_half_of_the_captions_are_plain():
    for split in emoji.SPLITS:
        drawn = scenes(3000, split)
        share = np.mean([scene.claim.paraphrased for scene in drawn])
        assert 0.35 < share < 0.55
        for scene in drawn:
            same = scene.caption == emoji_words.plain(scene.claim)
            assert same != scene.claim.paraphrased


def test_heldout_has_every_kind():
    kinds = collections.Counter(scene.kind for scene in scenes(2000, "heldout"))
    for kind, share in emoji.KINDS.items():
        assert abs(kinds[kind] / 2000 - share) < 0.05


def test_a_tenth_to_a_seventh_of_each_kind_is_held_out():
    def claim(*things, relation="", background=""):
        things = tuple(emoji.Thing(*thing) for thing in things)
        return emoji.Claim(things, relation, background)

    names = sprites.names()
    pairs = [((1, "", a), (1, "", b)) for a in names[:30] for b in names if a != b]
    grounds = [ground for ground in emoji.BACKGROUNDS if ground != "white"]
    kinds = {
        "single": [claim((1, "", n), background=b) for n in names for b in grounds],
        "count": [claim((k, "", n)) for k in (2, 3, 4) for n in names],
        "relation": [claim(*pair, relation="above") for pair in pairs],
        "and": [claim(*pair) for pair in pairs],
    }
    for kind, claims in kinds.items():
        fates = [emoji.is_heldout(kind, c) for c in claims]
        # A kind with few combinations strays by a few per cent.
        assert 0.08 < np.mean(fates) < 0.16, kind


def test_single_objects_on_white_are_never_held_out():
    for name in sprites.names():
        for ground in ("", "white"):
            claim = emoji.Claim((emoji.Thing(1, "", name),), background=ground)
            assert not emoji.is_heldout("single", claim)


def test_layouts_show_what_is_claimed():
    for scene in scenes(8000):
        claim, placed = scene.claim, scene.placed
        assert scene.background == (claim.background or "white")
        for _, x, y, side in placed:
            assert side / 2 <= min(x, y) and max(x, y) <= 1 - side / 2
        names = collections.Counter(p.name for p in placed)
        assert names == {thing.name: thing.number for thing in claim.things}
        sides = {p.name: p.side for p in placed}
        for thing in claim.things:
            if len(claim.things) == 1 and thing.number == 1:
                cells = emoji.LATTICE * sides[thing.name]
                assert cells == emoji.SINGLE_SIDE[thing.size]
        if len(claim.things) == 2:
            first, second = (sides[thing.name] for thing in claim.things)
            sizes = tuple(thing.size for thing in claim.things)
            if sizes == ("big", "small"):
                assert first > 1.45 * second
            elif sizes == ("small", "big"):
                assert second > 1.45 * first
            else:
                assert sizes == ("", "") and first == second
        if len(claim.things) == 2:
            first, second = (
                next(p for p in placed if p.name == thing.name)
                for thing in claim.things
            )
            offset = (second.x - first.x, second.y - first.y)
            axis = int(claim.relation in ("above", "below"))
            sign = -1 if claim.relation in ("right of", "below") else 1
            assert offset[axis] * sign > abs(offset[1 - axis])


def ink(placed):
    """Alpha [128, 128] of an object alone."""
    x, y, side = (128 * value for value in placed[1:])
    box = tuple(
        int(min(max(edge, 0), 128))
        for edge in (x - side / 2, y - side / 2, x + side / 2 + 1, y + side / 2 + 1)
    )
    alpha = np.zeros((128, 128))
    alpha[box[1] : box[3], box[0] : box[2]] = sprites.cut(placed.name, x, y, side, box)[
        ..., 3
    ]
    return alpha / 255


def visible_share(scene, name):
    """The share of an object's ink that no later object covers."""
    inks = [ink(placed) for placed in scene.placed]
    i = [placed.name for placed in scene.placed].index(name)
    left = inks[i].copy()
    for other in inks[i + 1 :]:
        left *= 1 - other
    return left.sum() / inks[i].sum()


def test_objects_overlap_but_are_mostly_seen():
    shares = np.array(
        [
            visible_share(scene, thing.name)
            for scene in scenes(1500)
            if len(scene.claim.things) == 2
            for thing in scene.claim.things
        ]
    )
    assert shares.min() > 0.6
    assert (shares < 0.98).mean() > 0.02


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
    """Up to one level, rarely up to four at an edge: the resize starts elsewhere."""
    differences = []
    for scene in scenes(100):
        whole = emoji.render(scene, 256)[64:160, 96:192].astype(int)
        part = emoji.render(scene, 256, (64, 96, 96)).astype(int)
        differences.append(np.abs(part - whole))
    # Of 400 scenes, 8 have a single value that is 3 off, or 4.
    assert np.max(differences) <= 4
    assert np.mean(np.array(differences) > 1) < 1e-3
    assert np.mean(np.array(differences) > 2) < 1e-5


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
            assert differs.sum() > 100, (name, background)


def test_pictures_have_the_background_in_their_corners():
    image = emoji.render(emoji.Scene("", "blue", ()), 16)
    assert image.dtype == np.uint8 and image.shape == (16, 16, 3)
    assert (image == emoji.BACKGROUNDS["blue"]).all()


def test_labels_are_what_was_placed():
    for i, scene in enumerate(scenes(200)):
        objects, ground = emoji.labels(scene).values()
        assert list(emoji.BACKGROUNDS)[ground] == scene.background
        there = objects[objects[:, 0] >= 0]
        assert len(there) == len(scene.placed), i
        for row, placed in zip(there, scene.placed, strict=True):
            assert sprites.names()[int(row[0])] == placed.name
            np.testing.assert_allclose(row[1:], placed[1:], rtol=1e-6)


def test_grounding_says_what_is_named_and_where_it_stands():
    looks = sprites.looks()
    assert looks.shape == (len(sprites.names()), sprites.LOOKS)
    np.testing.assert_allclose(looks.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose((looks**2).mean(), 1.0, rtol=1e-5)
    # They are linear in the pixels and leave out little.
    tiles = [
        sprites.cut(name, 8.0, 8.0, 16.0, (0, 0, 16, 16)) for name in sprites.names()
    ]
    flat = np.stack(tiles).reshape(len(tiles), -1).astype(float)
    flat -= flat.mean(0)
    fit, *_ = np.linalg.lstsq(looks, flat, rcond=None)
    assert ((flat - looks @ fit) ** 2).sum() < 0.03 * (flat**2).sum()
    scenes = [emoji.scene(0, index) for index in range(40)]
    for scene in scenes:
        # Three stars look like one; of a pair, each is there once.
        named = {placed.name for placed in scene.placed}
        expected = sum(looks[sprites.names().index(name)] for name in named)
        told = emoji.grounding(scene)
        np.testing.assert_allclose(told["looks"], expected, atol=1e-5)
        # Where boxes overlap, looks add up.
        layout = np.zeros((emoji.GROUNDED, 8, 8))
        centres = (np.arange(8) + 0.5) / 8
        for name, x, y, side in scene.placed:
            inside = (abs(centres[:, None] - y) < side / 2) & (
                abs(centres - x) < side / 2
            )
            look = looks[sprites.names().index(name), : emoji.GROUNDED]
            layout += look[:, None, None] * inside
        np.testing.assert_allclose(told["layout"], layout.reshape(-1, 64), atol=1e-5)


def test_spoiled_objects_are_half_another_and_only_in_training():
    spoiled = [emoji.spoiled_scene(0, i) for i in range(2000)]
    some = [s for s in spoiled if any("|" in p.name for p in s.placed)]
    assert 0.12 < len(some) / 2000 < 0.18
    labels = emoji.labels(some[0])["objects"][:, 0]
    assert (labels == len(sprites.names())).sum() == 1
    heldout = [emoji.spoiled_scene(0, i, "heldout") for i in range(200)]
    assert heldout == scenes(200, "heldout")

    def drawn(name):
        placed = (emoji.Placed(name, 0.5, 0.5, 0.5),)
        return emoji.render(emoji.Scene("", "white", placed), 64)

    half = drawn("dog|pizza")
    np.testing.assert_array_equal(half[:, :32], drawn("dog")[:, :32])
    np.testing.assert_array_equal(half[:, 32:], drawn("pizza")[:, 32:])
