import itertools

import numpy as np
import pytest

from imagen_jax.data import readers, tasks
from imagen_jax.text import tokenizer

seqio = pytest.importorskip("seqio")

from imagen_jax.data import seqio_tasks  # noqa: E402  (needs seqio)


def reader(name="emoji", split="train"):
    return readers.Reader(
        source=tasks.by_name(name, split),
        tokenizer=tokenizer.ByteTokenizer(),
        batch_size=4,
        length=112,
        resolution=16,
    )


def texts(dataset, count):
    examples = itertools.islice(dataset.as_numpy_iterator(), count)
    tokens = np.stack([example["tokens"] for example in examples])
    return tokenizer.ByteTokenizer().decode(tokens)


def test_a_task_draws_the_examples_of_its_split():
    by_split = {split: reader(split=split) for split in ("train", "heldout")}
    task = seqio_tasks.task("t", by_split)
    for split, one in by_split.items():
        lengths = seqio_tasks.feature_lengths(one)
        dataset = task.get_dataset(lengths, split=split, shuffle=False)
        dataset = seqio_tasks.TextImageFeatureConverter()(dataset, lengths)
        assert texts(dataset, 5) == [one.source.text(0, i) for i in range(5)]


def test_a_task_gives_unpadded_text_and_an_image():
    one = reader()
    task = seqio_tasks.task("t", {"train": one})
    dataset = task.get_dataset(seqio_tasks.feature_lengths(one), shuffle=False)
    example = next(dataset.as_numpy_iterator())
    assert example["text"].tolist()[-1] == tokenizer.EOS
    assert len(example["text"]) == len(one.source.text(0, 0)) + 1
    np.testing.assert_array_equal(
        example["image"], one.source.example(0, 0, 16)["image"]
    )


def test_the_converter_masks_the_padding():
    one = reader("emoji_captions")
    lengths = seqio_tasks.feature_lengths(one)
    task = seqio_tasks.task("t", {"train": one})
    dataset = task.get_dataset(lengths, shuffle=False)
    dataset = seqio_tasks.feature_converter(one)(dataset, lengths)
    example = next(dataset.as_numpy_iterator())
    assert example.keys() == {"tokens", "mask"}
    assert example["mask"].dtype == bool and example["tokens"].dtype == np.int32
    np.testing.assert_array_equal(example["mask"], example["tokens"] != 0)


def test_a_mixture_registers_once_and_mixes():
    splits = {
        f"test_{name}": {split: reader(name, split) for split in ("train", "heldout")}
        for name in ("emoji", "shapes")
    }
    rates = {"test_emoji": 0.5, "test_shapes": 0.5}
    for _ in range(2):
        mixture = seqio_tasks.register("test_scenes", rates, splits)
    lengths = {"text": 112, "image": 16}
    dataset = mixture.get_dataset(lengths, split="train", shuffle=False, seed=0)
    dataset = seqio_tasks.TextImageFeatureConverter()(dataset, lengths)
    found = texts(dataset, 30)
    emoji = {splits["test_emoji"]["train"].source.text(0, i) for i in range(30)}
    assert 5 < sum(text in emoji for text in found) < 25
