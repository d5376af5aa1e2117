"""seqio Tasks, a mixture and a feature converter, thin over the sources of `tasks`.

This module needs seqio and TensorFlow (6-10 s to import, 800 MB): it is itself imported
only inside the functions that use it, `Reader.batches` first of all.

A seqio Task here is a range of global indices and one preprocessor that draws; what an
index means is decided by the source alone, so seqio gives the same stream as grain.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from imagen_jax.data import readers

try:
    import seqio
    import tensorflow as tf
except ImportError as error:
    raise ImportError(
        f"{error}. The seqio reader needs more packages; fix: "
        'pip install "imagen_jax[seqio]".'
    ) from error

IMAGE, TEXT = "image", "text"
CHUNK = 32  # examples drawn in one call: each call from TensorFlow costs 0.5 ms


class TextImageFeatureConverter(seqio.FeatureConverter):
    """Turn task features {text, image} into model features {tokens, mask, image}.

    Tokens int32 [L] are padded with 0 up to the length of `text`; mask bool [L] is
    true at tokens, eos included; the image uint8 [H, W, 3] passes unchanged.
    """

    TASK_FEATURES: Mapping[str, Any] = {
        TEXT: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        IMAGE: seqio.FeatureConverter.FeatureSpec(dtype=tf.uint8, rank=3),
    }
    MODEL_FEATURES: Mapping[str, Any] = {
        "tokens": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        "mask": seqio.FeatureConverter.FeatureSpec(dtype=tf.bool),
        IMAGE: seqio.FeatureConverter.FeatureSpec(dtype=tf.uint8, rank=3),
    }
    PACKING_FEATURE_DTYPES: Mapping[str, Any] = {}

    def __init__(self) -> None:
        super().__init__(pack=False)

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        length = task_feature_lengths[TEXT]

        def convert(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            size = tf.size(features[TEXT])
            tokens = tf.pad(features[TEXT], [[0, length - size]])
            model_features = {
                "tokens": tf.ensure_shape(tokens, [length]),
                "mask": tf.range(length) < size,
            }
            if IMAGE in self.TASK_FEATURES:
                model_features[IMAGE] = features[IMAGE]
            return model_features

        return ds.map(convert)

    def get_model_feature_lengths(
        self, task_feature_lengths: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Return the lengths of tokens, mask and image."""
        lengths = dict(task_feature_lengths)
        text = lengths.pop(TEXT)
        return {"tokens": text, "mask": text, **lengths}


class TextFeatureConverter(TextImageFeatureConverter):
    """The same for text-only tasks: {text} into {tokens, mask}."""

    TASK_FEATURES: Mapping[str, Any] = {
        TEXT: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32)
    }
    MODEL_FEATURES: Mapping[str, Any] = {
        "tokens": seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
        "mask": seqio.FeatureConverter.FeatureSpec(dtype=tf.bool),
    }


def feature_converter(reader: readers.Reader) -> seqio.FeatureConverter:
    """Return the converter that suits the reader's source."""
    if reader.source.has_image:
        return TextImageFeatureConverter()
    return TextFeatureConverter()


def feature_lengths(reader: readers.Reader) -> dict[str, int]:
    """Return the lengths of the task features, as seqio asks for them."""
    lengths = {TEXT: reader.length}
    if reader.source.has_image:
        lengths[IMAGE] = reader.side
    return lengths


def task(name: str, splits: Mapping[str, readers.Reader], start: int = 0) -> seqio.Task:
    """Make a seqio Task, unregistered, with one reader a split.

    The source is the endless range of this host's global indices from `start` on; the
    drawing comes after it, so that sharding and skipping cost nothing.
    """
    split_names = tuple(splits)
    some = splits[split_names[0]]  # all splits have the same shapes

    def indices(
        split: str, shuffle_files: bool = False, seed: int | None = None
    ) -> tf.data.Dataset:
        del shuffle_files, seed  # the order belongs to the index map
        reader, which = splits[split], split_names.index(split)
        count = readers.LENGTH_OF_STREAM // reader.batch_size * reader.local_size

        def locate(place: tf.Tensor) -> dict[str, tf.Tensor]:
            batch = place // reader.local_size
            offset = place - batch * reader.local_size
            first = start + reader.host_index * reader.local_size
            index = first + batch * reader.batch_size + offset
            return {"index": index, "split": tf.constant(which)}

        return tf.data.Dataset.range(count).map(locate)

    def make(indices: np.ndarray, which: np.ndarray) -> list[np.ndarray]:
        batch = splits[split_names[int(which[0])]].batch(indices.tolist())
        return [batch["tokens"], batch["mask"].sum(1, dtype=np.int32), *images(batch)]

    def images(batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [batch[IMAGE]] if IMAGE in batch else []

    def read(where: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        kinds = [tf.int32, tf.int32] + [tf.uint8] * some.source.has_image
        parts = tf.numpy_function(make, (where["index"], where["split"]), kinds)
        features = {
            TEXT: tf.ensure_shape(parts[0], [None, some.length]),
            "size": tf.ensure_shape(parts[1], [None]),
        }
        if some.source.has_image:
            shape = [None, some.side, some.side, 3]
            features[IMAGE] = tf.ensure_shape(parts[2], shape)
        return features

    def cut(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        size = features.pop("size")
        return {**features, TEXT: features[TEXT][:size]}

    def draw(dataset: tf.data.Dataset) -> tf.data.Dataset:
        dataset = dataset.batch(CHUNK).map(read, some.threads, deterministic=True)
        return dataset.unbatch().map(cut)

    features: dict[str, Any] = {
        TEXT: seqio.Feature(
            seqio.PassThroughVocabulary(some.tokenizer.vocab_size), add_eos=False
        )
    }
    if some.source.has_image:
        features[IMAGE] = seqio.ContinuousFeature(dtype=tf.uint8, rank=3)
    return seqio.Task(
        name,
        source=seqio.FunctionDataSource(indices, splits=split_names),
        preprocessors=[draw],
        output_features=features,
        shuffle_buffer_size=None,
    )


def register(
    mixture: str, rates: Mapping[str, float], splits: Mapping[str, Mapping[str, Any]]
) -> seqio.Mixture:
    """Add Tasks and a seqio Mixture of them to seqio's registries.

    `splits` maps each task's name to its readers by split, `rates` to its rate. For
    programs that are built on seqio: seqio's own mixing orders examples differently
    for each number of hosts. Our readers mix with `tasks.Mixture` instead.
    """
    for name, by_split in splits.items():
        if name not in seqio.TaskRegistry.names():
            seqio.TaskRegistry.add_provider(name, task(name, by_split))
    if mixture not in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.add(mixture, list(rates.items()))
    return seqio.MixtureRegistry.get(mixture)


def batches(reader: readers.Reader, start: int) -> Iterator[dict[str, np.ndarray]]:
    """Read with seqio: the same stream as grain's, from the global example `start`."""
    for extra in ("labels", "reworded"):
        if getattr(reader.source, extra, None) is not None:
            raise ValueError(
                f"Reader: reader=seqio gives no {extra}, which {reader.source.name} "
                "has. Take reader=grain."
            )
    if reader.cache is not None or getattr(reader.source, "shapes", None) is not None:
        raise ValueError(
            "Reader: reader=seqio reads neither data.embeddings nor data.pictures."
            "buckets. Take reader=grain."
        )
    # TensorFlow only feeds; it must not take the accelerator's memory.
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    # seqio allows few characters in names; sources from files have their paths'.
    name = re.sub(r"[^\w.:#]", "_", reader.source.name)
    dataset = task(name, {"train": reader}, start).get_dataset(
        sequence_length=feature_lengths(reader), split="train", shuffle=False
    )
    dataset = feature_converter(reader)(dataset, feature_lengths(reader))
    dataset = dataset.batch(reader.local_size, drop_remainder=True)
    # Autotuning takes half the time that so cheap examples need.
    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = reader.threads
    dataset = dataset.with_options(options)
    return iter(dataset.prefetch(reader.prefetch).as_numpy_iterator())
