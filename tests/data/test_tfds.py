"""Data sets that TFDS itself has prepared, in both of its file formats."""

import pytest

from imagen_jax.data import picture_task
from tests.data import making

NUMBER = 30


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return making.prepare_tfds(tmp_path_factory.mktemp("tfds"), NUMBER)


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_a_prepared_data_set_is_read_with_all_its_captions(prepared, kind):
    path = f"tfds:captions_{kind}@{prepared}"
    settings = picture_task.PictureSettings(path=path, heldout=0.0)
    source = picture_task.source(settings, "train", resolution=16, batch_size=1)
    seen = {}
    for i in range(6 * NUMBER):
        example = source.example(0, i, 16)
        number = making.number_of(example["image"])
        seen.setdefault(number, set()).add(example["text"])
        assert example["text"] in (making.caption(number), f"again {number}")
    assert sorted(seen) == list(range(NUMBER))
    assert max(len(texts) for texts in seen.values()) == 2


def test_what_is_not_prepared_says_how_to(prepared):
    for path, named in (
        (f"tfds:coco_captions@{prepared}", "download_and_prepare"),
        (f"tfds:captions_tfrecord@{prepared}", "has train, val, got 'test'"),
    ):
        settings = picture_task.PictureSettings(path=path, split="test")
        with pytest.raises(ValueError, match=named):
            picture_task.source(settings, "train", resolution=16, batch_size=1)
