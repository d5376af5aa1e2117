import collections
import pickle

import numpy as np
import pytest

from imagen_jax.data import tasks


def numbers(size=None, name="numbers"):
    """A source whose caption is its index."""
    return tasks.Task(name=name, scene=lambda seed, i, split: i, caption=str, size=size)


@pytest.mark.parametrize("name", tasks.NAMES)
def test_every_name_gives_examples(name):
    for split in ("train", "heldout"):
        source = tasks.by_name(name, split)
        assert source.name == name
        example = source.example(0, 3, 16)
        assert example["text"] == source.text(0, 3)
        assert ("image" in example) == source.has_image
        if source.has_image:
            assert example["image"].shape == (16, 16, 3)
            assert example["image"].dtype == np.uint8


def test_unknown_names_and_splits_are_refused():
    with pytest.raises(ValueError, match="name must be one of"):
        tasks.by_name("emojis")
    with pytest.raises(ValueError, match=r"split must be one of .*got 'test'"):
        tasks.by_name("emoji", "test")


def test_captions_are_those_of_the_pictures():
    task = tasks.emoji_task()
    assert [task.text(0, i) for i in range(20)] == [
        task.text_only().example(0, i, 16)["text"] for i in range(20)
    ]


def test_sources_can_be_sent_to_other_processes():
    source = pickle.loads(pickle.dumps(tasks.by_name("captions")))
    assert source == tasks.by_name("captions") != tasks.by_name("captions", "heldout")
    assert source.text(0, 5) == tasks.by_name("captions").text(0, 5)


def test_a_sized_task_shows_everything_once_an_epoch():
    task = numbers(size=100)
    epochs = [
        [int(task.text(0, i)) for i in range(100 * e, 100 * e + 100)] for e in range(3)
    ]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_mixture_keeps_its_proportions_in_every_block():
    mixture = tasks.Mixture(
        name="m",
        sources=(numbers(name="a"), numbers(name="b"), numbers(name="c")),
        weights=(1.0, 2.0, 5.0),
    )
    for block in range(2):
        places = range(block * tasks.BLOCK, (block + 1) * tasks.BLOCK)
        counts = collections.Counter(mixture.locate(0, i)[0].name for i in places)
        assert counts == {"a": 512, "b": 1024, "c": 2560}


def test_a_mixture_repeats_and_skips_nothing():
    mixture = tasks.Mixture(
        name="m", sources=(numbers(name="a"), numbers(name="b")), weights=(0.3, 0.7)
    )
    located = [mixture.locate(4, i) for i in range(3 * tasks.BLOCK)]
    for name in "ab":
        indices = [index for source, index in located if source.name == name]
        assert sorted(indices) == list(range(len(indices)))


def test_a_mixture_is_mixed_finely():
    mixture = tasks.Mixture(
        name="m", sources=(numbers(name="a"), numbers(name="b")), weights=(1, 1)
    )
    names = "".join(mixture.locate(0, i)[0].name for i in range(400))
    assert "a" * 20 not in names and "b" * 20 not in names


def test_mixtures_check_their_weights():
    with pytest.raises(ValueError, match="one weight a source"):
        tasks.Mixture(name="m", sources=(numbers(),), weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="must be positive"):
        tasks.Mixture(name="m", sources=(numbers(),), weights=(0.0,))
    with pytest.raises(ValueError, match="do not mix"):
        tasks.Mixture(
            name="m", sources=(numbers(), tasks.shapes_task()), weights=(1.0, 1.0)
        )
