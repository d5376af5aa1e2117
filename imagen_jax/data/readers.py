"""From a source to batches: sharded by host, restartable at any example.

The stream is a function of (source, seed); a batch is the next `batch_size` indices of
the global example counter, of which each host draws only its own slice. So the order
is the same for any number of hosts, and to go on after a restart one integer suffices.
The two readers, grain and seqio, give the same stream; they differ in what drives the
threads that draw ahead.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from imagen_jax.data import embeddings, preprocessors, tasks
from imagen_jax.text import tokenizer

READERS = ("grain", "seqio")
LENGTH_OF_STREAM = 1 << 40
# Texts of an example, and what stands before the names of their tokens in a batch.
TEXTS = {"text": "", "reworded": "reworded_"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """Yields {"image" uint8 [B, H, W, 3], "tokens" int32 [B, L], "mask" bool [B, L]}.

    B is `batch_size` (global) divided by `host_count`; text-only sources give no
    image, labelled ones their labels too, reworded ones also {"reworded_tokens",
    "reworded_mask"}. With `crop`, H = W = crop: a random window
    of the picture at `resolution`, its corner on a multiple of `crop_multiple`; only
    the window is drawn. With `truncate`, texts of more than `length` tokens are cut;
    else they are an error. With `cache`, "text_values" [B, L, D] stand for tokens.
    """

    source: tasks.Source
    tokenizer: tokenizer.Tokenizer
    batch_size: int
    length: int
    resolution: int = 64
    seed: int = 0
    crop: int | None = None
    crop_multiple: int = 1
    host_index: int = 0
    host_count: int = 1
    reader: str = "grain"
    threads: int = 2
    prefetch: int = 4
    truncate: bool = False
    cache: embeddings.Cache | None = None

    def __post_init__(self):
        if self.reader not in READERS:
            raise ValueError(
                f"Reader: reader must be one of {READERS}, got {self.reader!r}."
            )
        if self.batch_size % self.host_count or self.batch_size < 1:
            raise ValueError(
                "Reader: batch_size must be a positive multiple of host_count, got "
                f"{self.batch_size} and {self.host_count}. Change --config.batch_size."
            )
        if not 0 <= self.host_index < self.host_count:
            raise ValueError(
                f"Reader: host_index must be in [0, {self.host_count}), got "
                f"{self.host_index}."
            )

    @property
    def side(self) -> int:
        """Height and width of the pictures."""
        return self.resolution if self.crop is None else self.crop

    @property
    def local_size(self) -> int:
        """Examples of a batch on this host."""
        return self.batch_size // self.host_count

    def indices(self, start: int, batch: int) -> range:
        """Return this host's slice of the batch: global indices."""
        first = start + batch * self.batch_size + self.host_index * self.local_size
        return range(first, first + self.local_size)

    def example(self, index: int) -> dict:
        """Make one example {"image", "text"}, cropped if the reader crops."""
        window = None
        if self.source.has_image and self.crop is not None:
            window = preprocessors.crop_window(
                self.seed, index, self.resolution, self.crop, self.crop_multiple
            )
        return self.source.example(self.seed, index, self.resolution, window)

    def batch(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Make the batch of the given global indices; a pure function."""
        examples = [self.example(index) for index in indices]
        batch = {}
        for name in examples[0]:
            values = [example[name] for example in examples]
            if name == "text" and self.cache is not None:
                found, mask = self.cache(values, self.length)
                batch |= {"text_values": found, "mask": mask}
            elif name in TEXTS:
                prefix = TEXTS[name]
                ids, mask = self.tokenizer.encode(
                    values, self.length, truncate=self.truncate
                )
                batch |= {f"{prefix}tokens": ids, f"{prefix}mask": mask}
            else:
                batch[name] = np.stack(values)
        return batch

    def bad_examples(self) -> dict[str, int]:
        """How many examples could not be used so far, by cause (`pictures.CAUSES`)."""
        found: dict[str, int] = {}
        for source in getattr(self.source, "sources", (self.source,)):
            # The sources of one config share their tally.
            found |= getattr(source, "bad", {})
        return found

    def batches(self, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Return the endless stream of batches from the global example `start` on."""
        if start < 0:
            raise ValueError(f"Reader: start must not be negative, got {start}.")
        if self.reader == "seqio":
            try:
                from imagen_jax.data import seqio_tasks
            except ImportError as error:
                raise ValueError(
                    "Reader: reader=seqio requires seqio and TensorFlow, which cannot "
                    f"be imported ({error}). "
                    'Fix: pip install "imagen_jax[seqio]", or take reader=grain.'
                ) from error
            return seqio_tasks.batches(self, start)
        return grain_batches(self, start)


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """A grain random-access source: element k is this host's k-th batch."""

    reader: Reader
    start: int

    def __len__(self) -> int:
        return LENGTH_OF_STREAM // self.reader.batch_size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self.reader.batch(self.reader.indices(self.start, int(index)))


def grain_batches(reader: Reader, start: int) -> Iterator[dict[str, np.ndarray]]:
    """Read with grain: threads draw whole batches ahead, order kept."""
    try:
        import grain
    except ImportError as error:
        raise ValueError(
            "Reader: reader=grain requires grain, which is not installed. "
            'Fix: pip install "imagen_jax[train]".'
        ) from error
    options = grain.ReadOptions(
        num_threads=reader.threads, prefetch_buffer_size=reader.prefetch
    )
    dataset = grain.MapDataset.source(BatchSource(reader, start))
    return iter(dataset.to_iter_dataset(read_options=options))
