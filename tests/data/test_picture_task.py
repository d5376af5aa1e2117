import threading

import numpy as np
import pytest

from imagen_jax.data import (
    buckets,
    checking,
    collection,
    embeddings,
    index,
    picture_task,
    pictures,
    readers,
    records,
    tasks,
)
from imagen_jax.text import tokenizer
from tests.data import making

NUMBER = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fifty pictures in tars; a score tells each one's number."""
    path = tmp_path_factory.mktemp("data") / "tars"
    return making.write(path, "webdataset", [making.picture(i) for i in range(NUMBER)])


def source_of(path, split="train", resolution=16, batch_size=4, **settings):
    values = {"path": path, "heldout": 0.0, **settings}
    return picture_task.source(
        picture_task.PictureSettings(**values),
        split,
        resolution=resolution,
        batch_size=batch_size,
    )


def ids(source, indices, seed=0):
    return [making.number_of(source.example(seed, i, 16)["image"]) for i in indices]


@pytest.mark.parametrize("shuffle", ["global", "window"])
def test_an_epoch_holds_every_record_once_and_the_next_another_order(folder, shuffle):
    source = source_of(folder, shuffle=shuffle)
    first, second = (
        ids(source, range(epoch * NUMBER, (epoch + 1) * NUMBER)) for epoch in (0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(NUMBER))
    assert first != second and first != sorted(first)
    assert ids(source, range(NUMBER)) == first
    assert ids(source, range(NUMBER), seed=1) != first


def test_windows_keep_neighbours_together(monkeypatch):
    monkeypatch.setattr(collection, "WINDOW", 8)
    places = [collection.place_of(i, 30, 5, "window") for i in range(30)]
    assert sorted(places) == list(range(30))
    blocks = [{place // 8 for place in places[i : i + 8]} for i in range(0, 30, 8)]
    assert all(len(block) == 1 for block in blocks)
    assert blocks[-1] == {3}


def test_a_picture_and_its_caption_stay_together(folder):
    source = source_of(folder)
    for i in range(NUMBER):
        example = source.example(0, i, 16)
        assert example["text"] == making.caption(making.number_of(example["image"]))
        assert source.text(0, i) == example["text"]


def test_heldout_records_are_never_trained_on(folder):
    train = source_of(folder, heldout=0.3)
    heldout = source_of(folder, "heldout", heldout=0.3)
    some, others = (
        set(ids(source, range(len(source.contents)))) for source in (train, heldout)
    )
    assert not some & others and some | others == set(range(NUMBER))
    assert 5 <= len(others) <= 25


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"min_side": 90}, lambda w, h, i: min(w, h) >= 90),
        ({"max_aspect": 1.2}, lambda w, h, i: max(w, h) <= 1.2 * min(w, h)),
        ({"column": "score", "at_least": 20.0}, lambda w, h, i: i >= 20),
        ({"min_caption": 17}, lambda w, h, i: i >= 10),
        ({"max_caption": 16}, lambda w, h, i: i < 10),
    ],
)
def test_filters(folder, settings, kept):
    source = source_of(folder, **settings)
    expected = [i for i in range(NUMBER) if kept(70 + i * 7 % 50, 70 + i * 11 % 50, i)]
    assert sorted(ids(source, range(len(source.contents)))) == expected
    assert 0 < len(expected) < NUMBER


def test_pictures_under_the_resolution_are_left_out_unless_asked_for(folder):
    assert len(source_of(folder, resolution=100).contents) < NUMBER
    assert len(source_of(folder, resolution=100, min_side=1).contents) == NUMBER


def test_no_record_left_says_why(folder):
    with pytest.raises(ValueError, match=r"none of 50 records .* min_side 50"):
        source_of(folder, resolution=2000)
    with pytest.raises(ValueError, match="refused by column 50"):
        source_of(folder, column="beauty", at_least=5.0)


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"data\.pictures\.path"):
        source_of("")
    with pytest.raises(ValueError, match="weights: one for each of 2"):
        source_of("a,b", weights=(1.0,))


def test_random_crops_differ_and_stay_inside():
    size = pictures.Size(300, 100)
    boxes = [
        picture_task.largest(size, 1.0, picture_task.order.Draw(0, i))
        for i in range(50)
    ]
    assert len({box[0] for box in boxes}) == 50
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 1 and (top, bottom) == (0.0, 1.0)
        assert right - left == pytest.approx(1 / 3)
    assert picture_task.largest(size, 1.0, None)[0] == pytest.approx(1 / 3)


def test_captions_are_chosen_anew_and_sometimes_dropped(tmp_path):
    (tmp_path / "a.png").write_bytes(making.picture(1))
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    source = source_of(str(tmp_path), caption_drop=0.25)
    texts = [source.text(0, i) for i in range(400)]
    assert set(texts) == {"", "one", "two", "three"}
    assert 60 <= texts.count("") <= 140


def test_a_window_is_that_part_of_the_whole(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    data = making.encoded(pictures.Image.fromarray(noise))
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "a.txt").write_text("noise")
    source = source_of(str(tmp_path))
    whole = source.example(0, 0, 64)["image"]
    part = source.example(0, 0, 64, (16, 32, 24))["image"]
    np.testing.assert_allclose(part.astype(int), whole[16:40, 32:56], atol=1)


def test_two_paths_mix_by_weight(folder, tmp_path):
    other = making.write(tmp_path, "tfrecord", [making.picture(100)] * 3)
    mixed = source_of(f"{folder}, {other}", weights=(0.75, 0.25))
    assert isinstance(mixed, tasks.Mixture)
    found = ids(mixed, range(400))
    assert 0.15 <= found.count(100) / 400 <= 0.35
    by_size = source_of(f"{folder},{other}")
    assert ids(by_size, range(530)).count(100) == pytest.approx(30, abs=15)


def test_captions_alone_are_read_without_pictures(folder):
    source = source_of(folder, resolution=0)
    assert not source.has_image
    example = source.example(0, 5, 1)
    assert example == {"text": source_of(folder).text(0, 5)}


# What cannot be used


def test_a_bad_picture_is_counted_and_another_stands_in(tmp_path):
    data = [making.picture(i) for i in range(30)]
    data[7] = making.encoded(pictures.Image.new("RGB", (80, 80)), "PNG")[:-20] + b"x"
    source = source_of(making.write(tmp_path, "parquet", data), max_bad=0.5)
    found = ids(source, range(30))
    assert 7 not in found and len(set(found)) == 29
    assert source.tally.bad == {"truncated": 1} and source.tally.read == 31
    assert ids(source, range(30)) == found


def test_too_many_bad_ones_stop_with_their_causes(tmp_path):
    data = [making.picture(i) for i in range(40)]
    good = making.encoded(pictures.Image.new("RGB", (80, 80)), "PNG")
    data[::2] = [good[:-30]] * 20
    source = source_of(making.write(tmp_path, "webdataset", data), max_bad=0.1)
    with pytest.raises(picture_task.TooManyBad, match=r"truncated \d+\).*data check"):
        ids(source, range(1000))
    assert source.tally.read >= picture_task.FEW


def test_check_marks_bad_records_so_that_none_is_met(tmp_path):
    data = [making.picture(i) for i in range(40)]
    data[::4] = [making.damaged(0)[1]] * 10
    path = making.write(tmp_path, "tfrecord", data)
    assert len(source_of(path).contents) == 40  # their headers look sound
    fields = records.Fields()
    shards = picture_task.shards_of(path, "train", "", fields)
    seen = []
    found = checking.check(shards, report=seen.append)
    assert found.total == 40 == sum(seen) and found.causes == {"truncated": 10}
    assert "at byte 12" in found.named[0]
    picture_task.shards_of.cache_clear()
    source = source_of(path)
    assert len(source.contents) == 30
    ids(source, range(60))
    assert not source.tally.bad
    again = checking.check(picture_task.shards_of(path, "train", "", fields))
    assert again.causes == found.causes and again.total == 40


def test_a_tally_counts_from_many_threads():
    tally = picture_task.Tally(allowed=1.0)
    error = pictures.BadExample("truncated", "cut")

    def work():
        for _ in range(500):
            tally.good()
            tally.count(error, "x")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.read == 8000 and tally.bad["truncated"] == 4000


# Buckets


def test_shapes_have_about_the_area_of_the_square():
    assert buckets.shape_of(1.0) == (8, 8)
    for aspect in (0.5, 0.6, 0.75, 1.33, 1.5, 1.78, 2.0):
        height, width = buckets.shape_of(aspect)
        assert buckets.AREAS[0] <= height * width <= buckets.AREAS[1]
        assert width / height == pytest.approx(aspect, rel=0.12)


def test_a_batch_has_one_shape_and_an_epoch_no_record_twice(tmp_path):
    sizes = [(100, 100)] * 13 + [(150, 90)] * 10 + [(90, 150)] * 7
    data = [making.picture(i, size) for i, size in enumerate(sizes)]
    path = making.write(tmp_path, "webdataset", data)
    source = source_of(path, buckets=(1.0, 1.6, 0.625))
    batches = source.shapes.starts[-1]
    assert batches == 3 + 2 + 1
    for epoch in (0, 1):
        seen, shapes = [], set()
        for batch in range(epoch * batches, (epoch + 1) * batches):
            made = [source.example(0, batch * 4 + i, 64)["image"] for i in range(4)]
            assert len({image.shape for image in made}) == 1
            shapes.add(made[0].shape)
            seen += [making.number_of(image) for image in made]
        assert len(set(seen)) == len(seen) == 24
        assert shapes == {(64, 64, 3), (48, 80, 3), (80, 48, 3)}


def test_buckets_that_fill_no_batch_are_refused(folder):
    with pytest.raises(ValueError, match="no bucket fills a batch of 64"):
        source_of(folder, buckets=(1.0, 2.0), batch_size=64)
    with pytest.raises(ValueError, match="of one path alone"):
        source_of(f"{folder},{folder}", buckets=(1.0,))


# Through the readers


def reader_of(source, **values):
    common = {"batch_size": 8, "length": 32, "resolution": 16, "truncate": True}
    return readers.Reader(
        source=source, tokenizer=tokenizer.ByteTokenizer(), **{**common, **values}
    )


def test_seqio_gives_the_same_stream(folder):
    source = source_of(folder)
    grain, seqio = (
        reader_of(source, reader=name).batches(start=40) for name in ("grain", "seqio")
    )
    for _ in range(4):
        one, other = next(grain), next(seqio)
        for name in ("image", "tokens", "mask"):
            np.testing.assert_array_equal(one[name], other[name])


def test_seqio_refuses_shapes_that_change_and_embeddings(folder):
    cache = embeddings.Cache("nowhere", {})
    refused = (
        reader_of(source_of(folder, buckets=(1.0, 1.5)), reader="seqio"),
        reader_of(source_of(folder), reader="seqio", cache=cache),
    )
    for reader in refused:
        with pytest.raises(ValueError, match="Take reader=grain"):
            reader.batches()


def test_long_captions_are_cut(tmp_path):
    (tmp_path / "a.png").write_bytes(making.picture(1))
    (tmp_path / "a.txt").write_text("word " * 100)
    batch = next(reader_of(source_of(str(tmp_path))).batches())
    assert batch["mask"].all()


def test_tables_are_structured_arrays_that_a_mapping_reads(folder):
    shards = picture_task.shards_of(folder, "train", "", records.Fields())
    assert all(isinstance(shard.table, np.memmap) for shard in shards)
    assert index.load(folder + "/absent.npy") is None
