"""Data sets that TFDS itself has prepared, in both of its file formats."""

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data import picture_task
from tests.data import making

NUMBER = 30


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data directory with one data set in each format, several captions a picture."""
    import tensorflow_datasets as tfds

    class Captions(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "image/id": tfds.features.Scalar(dtype=np.int64),
                "captions": tfds.features.Sequence(
                    {"id": tfds.features.Scalar(np.int64), "text": tfds.features.Text()}
                ),
            }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(NUMBER),
                "val": self._generate_examples(3),
            }

        def _generate_examples(self, number):
            for i in range(number):
                image = Image.new("RGB", (80, 70), making.colour(i))
                texts = [making.caption(i), f"again {i}"]
                yield (
                    i,
                    {
                        "image": np.asarray(image),
                        "image/id": i,
                        "captions": [{"id": k, "text": t} for k, t in enumerate(texts)],
                    },
                )

    class CaptionsTfrecord(Captions):
        name = "captions_tfrecord"

    class CaptionsArrayRecord(Captions):
        name = "captions_array_record"

    folder = tmp_path_factory.mktemp("tfds")
    for builder, kind in (
        (CaptionsTfrecord, "tfrecord"),
        (CaptionsArrayRecord, "array_record"),
    ):
        made = builder(data_dir=folder, file_format=kind)
        made.download_and_prepare()
    return folder


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
