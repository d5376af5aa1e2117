import dataclasses
import itertools
import sys

import numpy as np
import pytest

from imagen_jax.data import (
    emoji,
    emoji_words,
    preprocessors,
    readers,
    sprites,
    tasks,
)
from imagen_jax.text import tokenizer


def make(**changes):
    fields = {
        "source": tasks.by_name("scenes"),
        "tokenizer": tokenizer.ByteTokenizer(),
        "batch_size": 8,
        "length": 112,
        "resolution": 16,
        "seed": 3,
        **changes,
    }
    return readers.Reader(**fields)


def take(reader, count, start=0):
    return list(itertools.islice(reader.batches(start), count))


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])
            assert batch[key].dtype == other[key].dtype


def joined(parts):
    return [
        {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        for batches in zip(*parts, strict=True)
    ]


def test_batches_have_the_agreed_form():
    batch = take(make(), 1)[0]
    assert batch["image"].shape == (8, 16, 16, 3) and batch["image"].dtype == np.uint8
    assert batch["tokens"].shape == (8, 112) and batch["tokens"].dtype == np.int32
    assert batch["mask"].shape == (8, 112) and batch["mask"].dtype == bool


def test_examples_come_in_the_order_of_the_counter():
    reader = make()
    source = reader.source
    for i, batch in enumerate(take(reader, 3, start=16)):
        texts = tokenizer.ByteTokenizer().decode(batch["tokens"])
        indices = range(16 + 8 * i, 24 + 8 * i)
        assert texts == [source.text(3, index) for index in indices]
        for image, index in zip(batch["image"], indices, strict=True):
            np.testing.assert_array_equal(image, source.example(3, index, 16)["image"])


def test_text_only_sources_give_no_image():
    assert take(make(source=tasks.by_name("captions")), 1)[0].keys() == {
        "tokens",
        "mask",
    }


def test_reworded_sources_say_everything_twice():
    reader = make(source=tasks.by_name("reworded_emoji"), batch_size=40)
    batch = take(reader, 1)[0]
    assert set(batch) == {
        "tokens",
        "mask",
        "reworded_tokens",
        "reworded_mask",
        "looks",
        "layout",
    }
    texts, others = (
        tokenizer.ByteTokenizer().decode(batch[name])
        for name in ("tokens", "reworded_tokens")
    )
    scenes = [emoji.worded_scene(3, i) for i in range(40)]
    assert texts == [scene.caption for scene in scenes]
    claims = [scene.claim for scene in scenes]
    for claim, other in zip(claims, others, strict=True):
        names = [
            form
            for name in (claim.things[0].name, *sprites.synonyms(claim.things[0].name))
            for form in (name, emoji_words.plural(name))
        ]
        assert any(name in other for name in names)
        assert claim.background in other
    assert sum(a != b for a, b in zip(texts, others, strict=True)) > 25


@pytest.mark.parametrize("name", ["labelled_emoji", "reworded_emoji"])
def test_seqio_refuses_what_it_cannot_carry(name):
    pytest.importorskip("seqio")
    with pytest.raises(ValueError, match="Take reader=grain"):
        make(source=tasks.by_name(name), reader="seqio").batches()


@pytest.mark.parametrize("reader", ["grain", "seqio"])
def test_the_stream_goes_on_where_it_stopped(reader):
    if reader == "seqio":
        pytest.importorskip("seqio")
    whole = take(make(reader=reader), 6)
    # The next batch may be smaller or larger: the counter counts examples.
    assert_equal(whole[2:], take(make(reader=reader), 4, start=16))
    halves = take(make(reader=reader, batch_size=4), 8, start=16)
    assert_equal(whole[2:], joined([halves[::2], halves[1::2]]))


@pytest.mark.parametrize("reader", ["grain", "seqio"])
@pytest.mark.parametrize("hosts", [2, 4])
def test_the_stream_is_the_same_at_any_number_of_hosts(reader, hosts):
    if reader == "seqio":
        pytest.importorskip("seqio")
    parts = [
        take(make(reader=reader, host_index=i, host_count=hosts), 4, start=8)
        for i in range(hosts)
    ]
    assert_equal(take(make(reader="grain"), 4, start=8), joined(parts))


@pytest.mark.parametrize("name", ["scenes", "captions"])
def test_both_readers_give_the_same_stream(name):
    pytest.importorskip("seqio")
    source = tasks.by_name(name)
    changes = {"source": source, "crop": 8, "crop_multiple": 4, "batch_size": 40}
    grain, seqio = (
        take(make(reader=reader, **changes), 4, start=7) for reader in readers.READERS
    )
    assert_equal(grain, seqio)


def test_a_host_draws_only_its_slice():
    drawn = []

    def scene(seed, index, split):
        drawn.append(index)
        return index

    source = tasks.Task(name="n", scene=scene, caption=str)
    make(source=source, host_index=1, host_count=4, batch_size=8).batch(
        make(host_index=1, host_count=4).indices(0, 2)
    )
    assert drawn == [18, 19]


def test_crops_are_windows_of_the_picture():
    reader = make(crop=8, crop_multiple=4, source=tasks.by_name("shapes"))
    image = take(reader, 1)[0]["image"][5]
    whole = reader.source.example(3, 5, 16)["image"]
    window = preprocessors.crop_window(3, 5, 16, 8, 4)
    np.testing.assert_array_equal(image, preprocessors.crop(whole, window))


def test_the_number_of_threads_does_not_matter():
    assert_equal(take(make(threads=1), 5), take(make(threads=8, prefetch=16), 5))


def test_seeds_give_other_streams():
    assert (take(make(), 1)[0]["tokens"] != take(make(seed=4), 1)[0]["tokens"]).any()


def test_errors_name_the_field():
    with pytest.raises(ValueError, match="multiple of host_count, got 8 and 3"):
        make(host_count=3)
    with pytest.raises(ValueError, match=r"host_index must be in \[0, 2\), got 2"):
        make(host_index=2, host_count=2)
    with pytest.raises(ValueError, match="reader must be one of"):
        make(reader="torch")
    with pytest.raises(ValueError, match="start must not be negative"):
        make().batches(-1)


@pytest.mark.parametrize("reader", ["grain", "seqio"])
def test_a_missing_package_is_named_with_its_extra(reader, monkeypatch):
    monkeypatch.setitem(sys.modules, reader, None)
    monkeypatch.delitem(sys.modules, "imagen_jax.data.seqio_tasks", raising=False)
    monkeypatch.delattr("imagen_jax.data.seqio_tasks", raising=False)
    extra = {"grain": "train", "seqio": "seqio"}[reader]
    with pytest.raises(ValueError, match=rf"imagen_jax\[{extra}\]"):
        make(reader=reader).batches(0)


def test_readers_are_plain_values():
    assert dataclasses.replace(make(), seed=4) == make(seed=4)
