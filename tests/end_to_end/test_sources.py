"""Every kind of file trains a small stage; captions encoded before or meanwhile."""

import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from imagen_jax import build, embed
from imagen_jax.checkpoints import model_directory
from imagen_jax.commands import configs, main
from imagen_jax.data import embeddings
from imagen_jax.training import loop
from tests.data import making

SMALL = [
    "--config.text.encoder.d_model=32",
    "--config.text.encoder.num_layers=1",
    "--config.text.length=40",
    "--config.stage.resolution=16",
    "--config.network.channels=32",
    "--config.network.num_res_blocks=1",
    "--config.network.head_dim=16",
    "--config.network.text_map=32",
    "--config.network.channel_mult=(1,)",
    "--config.network.attention_levels=(0,)",
    "--config.network.feed_forward=(1,)",
    "--config.network.dtype=float32",
    "--config.data.batch_size=8",
    "--config.data.threads=1",
    "--config.optimizer.warmup_steps=2",
    "--config.training.steps=3",
    "--config.training.log_every=1",
    "--config.training.sample_every=0",
    "--config.data.pictures.heldout=0.0",
]
NUMBER = 40


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A model directory that holds nothing but an untrained text encoder."""
    config = configs.load("pictures/base_64")
    configs.override(config, SMALL)
    init = build.encoder_init(build.make_text_module(config), config.text.length)
    params = nn.unbox(jax.jit(init)(jax.random.key(0)))
    folder = tmp_path_factory.mktemp("text")
    model_directory.write(folder, [], {"text": params}, "float32")
    return str(folder)


def flags(text, path, *more):
    return [
        *SMALL,
        f"--config.text.weights={text}",
        f"--config.data.pictures.path={path}",
        *more,
    ]


def train(run, folder, steps):
    """Train; return the lines of its log."""
    settings = loop.LoopSettings(
        workdir=str(folder),
        total_steps=steps,
        log_every=1,
        tensorboard="none",
        progress=False,
    )
    loop.train(run, settings)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def written(folder, kind, number=NUMBER):
    return making.write(folder, kind, [making.picture(i) for i in range(number)])


def run_of(*overrides):
    config = configs.load("pictures/base_64")
    configs.override(config, overrides)
    return build.training_run(config)


def first(batches, number):
    return [next(batches) for _ in range(number)]


def test_every_format_gives_the_same_batches(text, tmp_path):
    found = {
        kind: first(
            run_of(*flags(text, written(tmp_path / kind, kind))).make_batches(0), 4
        )
        for kind in making.FORMATS
    }
    for batches in found.values():
        jax.tree.map(np.testing.assert_array_equal, batches, found["webdataset"])


def test_sheets_of_a_small_data_set_show_what_is_trained_on(tmp_path, capsys):
    config = configs.load("pictures/base_64")
    path = written(tmp_path, "folder", 3)
    configs.override(config, flags("", path, "--config.data.pictures.heldout=0.01"))
    source = build.sheet_source(config)
    assert "No picture is held out" in capsys.readouterr().err
    texts = {source.example(0, i, 16)["text"] for i in range(3)}
    assert texts == {making.caption(i) for i in range(3)}


@pytest.mark.slow
def test_every_format_trains_a_stage(text, tmp_path):
    """Seven sources in one run; which pictures came from which, their numbers tell."""
    pytest.importorskip("tensorflow_datasets")
    paths = []
    for shift, kind in enumerate(making.FORMATS):
        pictures = [making.picture(8 * shift + i) for i in range(8)]
        paths.append(making.write(tmp_path / kind, kind, pictures))
    for shift, kind in enumerate(("tfrecord", "array_record"), len(making.FORMATS)):
        folder = making.prepare_tfds(tmp_path / f"tfds_{kind}", 8, first=8 * shift)
        paths.append(f"tfds:captions_{kind}@{folder}")
    seen = []
    run = run_of(*flags(text, ",".join(paths), "--config.training.steps=8"))

    def spied(start):
        for batch in run.make_batches(start):
            seen.extend(making.number_of(image) for image in batch["image"])
            yield batch

    lines = train(dataclasses.replace(run, make_batches=spied), tmp_path / "run", 8)
    assert {number // 8 for number in seen} == set(range(7))
    assert len(lines) == 8 and np.isfinite([line["loss"] for line in lines]).all()


@pytest.mark.slow
def test_buckets_give_shapes_other_than_the_square(text, tmp_path):
    sizes = [(64, 64)] * 16 + [(100, 60)] * 16
    data = [making.picture(i, size) for i, size in enumerate(sizes)]
    path = making.write(tmp_path / "data", "webdataset", data)
    run = run_of(
        *flags(text, path),
        "--config.stage.resolution=32",
        "--config.data.pictures.buckets=(1.0,1.67)",
    )
    params = nn.unbox(jax.jit(run.init)(jax.random.key(0)))
    shapes = set()
    loss = jax.jit(run.loss)
    for batch in first(run.make_batches(0), 3):
        values, _ = loss(jax.random.key(1), params, run.frozen, batch)
        assert np.isfinite(np.asarray(values)).all()
        shapes.add(batch["image"].shape)
    assert shapes == {(8, 32, 32, 3), (8, 24, 40, 3)}


@pytest.mark.slow
def test_embeddings_made_before_give_the_same_losses(text, tmp_path):
    path = written(tmp_path / "data", "parquet")
    plain = flags(text, path, "--config.data.pictures.caption_drop=0.2")
    cache = tmp_path / "cache"
    argv = ["embed", "--config", "pictures/base_64", "--out", str(cache), *plain]
    assert main.main([*argv, "--dtype", "float32", "--batch_size", "16"]) == 0
    more = f"--config.data.embeddings={cache}"
    online, cached = run_of(*plain), run_of(*plain, more)
    # Without the encoder's weights it does as well.
    alone = run_of(*plain, "--config.text.weights=", more)
    assert online.frozen is not None and cached.frozen is alone.frozen is None
    params = nn.unbox(jax.jit(online.init)(jax.random.key(0)))
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)  # the head starts at zero
    exact, stored = jax.jit(online.loss), jax.jit(cached.loss)
    streams = [run.make_batches(0) for run in (online, cached, alone)]
    for _ in range(3):
        batch, *others = (next(stream) for stream in streams)
        expected, _ = exact(jax.random.key(1), params, online.frozen, batch)
        for other in others:
            found, _ = stored(jax.random.key(1), params, None, other)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    lines = train(alone, tmp_path / "run", 2)
    assert len(lines) == 2 and np.isfinite(lines[-1]["loss"])


@pytest.mark.slow
def test_another_encoder_is_refused(text, tmp_path, capsys):
    path = written(tmp_path / "data", "webdataset", 20)
    config = configs.load("pictures/base_64")
    configs.override(config, flags(text, path))
    cache = str(tmp_path / "cache")
    embed.embed(config, cache, dtype="bfloat16", batch_size=16)
    other = build.text_params(config)
    other = jax.tree.map(lambda leaf: leaf * 1.001, other)
    folder = tmp_path / "other"
    model_directory.write(folder, [], {"text": other}, "float32")
    with pytest.raises(ValueError, match="another text encoder"):
        run_of(*flags(str(folder), path, f"--config.data.embeddings={cache}"))
    argv = ["embed", "--config", "pictures/base_64", "--out", cache]
    assert main.main([*argv, *flags(str(folder), path)]) == 2
    assert "was begun with encoder" in capsys.readouterr().err


@pytest.mark.slow
def test_embedding_goes_on_where_it_was_and_grows_with_the_data(
    text, tmp_path, monkeypatch
):
    monkeypatch.setattr(embed, "PARTITION", 8)
    config = configs.load("pictures/base_64")
    path = written(tmp_path / "data", "tfrecord")
    configs.override(config, flags(text, path))
    cache = str(tmp_path / "cache")
    write, calls = embeddings.write, []

    def until_the_third(*arguments):
        calls.append(arguments[1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(embeddings, "write", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        embed.embed(config, cache, dtype="int8", batch_size=16)
    with pytest.raises(ValueError, match=r"no embeddings\.json"):
        embeddings.open_cache(cache)
    told = embed.embed(config, cache, dtype="int8", batch_size=16)
    assert told["partitions"] == 5 and calls == [0, 1, 2, 2, 3, 4]
    assert told["captions"] == NUMBER + 1
    assert 0 < told["relative_error"] < 0.02
    assert embed.embed(config, cache, dtype="int8", batch_size=16) == told
    assert len(calls) == 6
    opened = embeddings.open_cache(cache)
    with pytest.raises(ValueError, match="has no embedding of 'picture number 40'"):
        opened(["picture number 40"], 40)
    making.WRITERS["tfrecord"](tmp_path / "data", 7, {40: making.picture(40)})
    build.picture_task.shards_of.cache_clear()
    embeddings.table_of.cache_clear()
    embed.embed(config, cache, dtype="int8", batch_size=16)
    values, mask = opened(["picture number 40", ""], 40)
    assert values.shape == (2, 40, 32) and mask.sum(1).tolist() == [18, 1]


@pytest.mark.slow
def test_shares_make_a_whole(text, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "PARTITION", 8)
    config = configs.load("pictures/base_64")
    configs.override(config, flags(text, written(tmp_path / "data", "webdataset")))
    common = {"dtype": "bfloat16", "batch_size": 16}
    one = embed.embed(config, str(tmp_path / "one"), **common)
    parts = str(tmp_path / "parts")
    told = [embed.embed(config, parts, share=(i, 3), **common) for i in (2, 0, 1)]
    assert told == [{}, {}, one]


@pytest.mark.parametrize(("kind", "off"), [("bfloat16", 4e-3), ("int8", 1e-2)])
def test_stored_vectors_are_near_the_exact_ones(tmp_path, kind, off):
    draw = np.random.default_rng(0)
    some = {
        embeddings.digest(f"text {i}"): draw.normal(size=(i % 5 + 1, 16)).astype("f4")
        for i in range(50)
    }
    told = embeddings.write(str(tmp_path), 0, some, kind)
    manifest = {"dtype": kind, "d_model": 16, "partitions": 1}
    cache = embeddings.Cache(str(tmp_path), manifest)
    for i in range(50):
        exact = some[embeddings.digest(f"text {i}")]
        error = np.abs(cache.tokens(f"text {i}").astype(np.float32) - exact)
        assert error.max() <= off * np.abs(exact).max()
    assert told["tokens"] == sum(i % 5 + 1 for i in range(50))
    assert (told["error"] / told["size"]) ** 0.5 < off
