import json
import os
import pathlib

import numpy as np
import pytest

from imagen_jax.data import collection, finding, index, picture_task, records
from imagen_jax.data.formats import examples
from imagen_jax.data.formats import folder as folder_format
from tests.data import making

NUMBER = 40


@pytest.fixture(scope="module", params=making.FORMATS)
def written(request, tmp_path_factory):
    """(format, path) of forty pictures in three shards."""
    folder = tmp_path_factory.mktemp("data") / request.param
    pictures = [making.picture(i) for i in range(NUMBER)]
    return request.param, making.write(folder, request.param, pictures)


ANY = records.Fields()


def shards_of(path, fields=ANY):
    kind, names = finding.find(path)
    return list(
        index.tables(kind, names, picture_task.index_folder(path, names), fields)
    )


def everything(shards):
    return [shard.record(row) for shard in shards for row in range(len(shard.table))]


def test_every_record_is_found_and_read_at_random(written):
    kind, path = written
    found, names = finding.find(path)
    assert found is finding.FORMATS[kind] and len(names) == 3
    some = everything(shards_of(path))
    assert [r.picture for r in some] == [making.picture(i) for i in range(NUMBER)]
    assert [records.texts(r) for r in some] == [
        [making.caption(i)] for i in range(NUMBER)
    ]


def test_the_table_tells_sizes_captions_and_columns(written):
    _, path = written
    tables = [shard.table for shard in shards_of(path)]
    width = np.concatenate([table["width"] for table in tables])
    assert width.tolist() == [70 + i * 7 % 50 for i in range(NUMBER)]
    longest = np.concatenate([table["longest"] for table in tables])
    assert longest.tolist() == [len(making.caption(i)) for i in range(NUMBER)]
    some = tables[1]["column:score"]  # the first of the folders has none
    np.testing.assert_array_equal(some, np.arange(16, 32))


def test_a_table_is_made_once_and_anew_when_its_file_changes(written, monkeypatch):
    kind, path = written
    shards_of(path)
    module = finding.FORMATS[kind]
    scanned = []
    scan = module.scan
    monkeypatch.setattr(module, "scan", lambda *a: scanned.append(a[0]) or scan(*a))
    shards = shards_of(path)
    assert not scanned
    name = shards[1].name
    touched = pathlib.Path(name)
    if touched.is_dir():
        touched = next(touched.glob("*.png"))
    data = touched.read_bytes()
    touched.write_bytes(data + b"\0" * (kind in ("folder", "webdataset")))
    os.utime(touched, (1, 1))
    shards_of(path)
    assert scanned == [name]


def test_a_file_by_itself_and_a_pattern_are_paths_too(written):
    kind, path = written
    if kind == "folder":
        pytest.skip("folders are no files")
    names = finding.find(path)[1]
    assert finding.find(names[0])[1] == names[:1]
    suffix = {"webdataset": "*.tar", "parquet": "*.parquet"}.get(kind, "x.*")
    assert finding.find(f"{path}/{suffix}")[1] == names


def test_remote_files_are_read_in_ranges(written):
    """fsspec's memory stands for gs:// and s3://, its interface being the same."""
    import fsspec

    kind, path = written
    memory = fsspec.filesystem("memory")
    url = f"memory://{kind}"
    memory.put(path, f"/{kind}", recursive=True)
    if kind == "array_record":
        with pytest.raises(ValueError, match="read from local disks alone"):
            finding.find(url)
        return
    found = [r.picture.rstrip(b"\0") for r in everything(shards_of(url))]
    assert found == [making.picture(i) for i in range(NUMBER)]
    assert memory.glob(f"/{kind}/.imagen_jax/*.npy")
    assert [records.texts(r) for r in everything(shards_of(url))][-1] == [
        making.caption(NUMBER - 1)
    ]


def test_nothing_known_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    for path in (str(tmp_path), str(tmp_path / "absent")):
        with pytest.raises(ValueError, match="no tar, parquet, TFRecord"):
            finding.find(path)


def test_a_text_file_holds_a_caption_a_line_and_a_table_several_rows(tmp_path):
    for i in (0, 1):
        (tmp_path / f"{i}.png").write_bytes(making.picture(i))
    (tmp_path / "0.txt").write_text("a dog\n\n the dog \n")
    rows = [{"file_name": "1.png", "text": text} for text in ("a cat", "one cat")]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join([*lines, "not json"]))
    found = [records.texts(r) for r in everything(shards_of(str(tmp_path)))]
    assert found == [["a dog", "the dog"], ["a cat", "one cat"]]


def test_a_table_above_names_pictures_by_their_way_from_it(tmp_path):
    for i, folder in enumerate((tmp_path / "a", tmp_path / "b" / "c")):
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(making.picture(i))
    (tmp_path / "metadata.csv").write_text(
        "file_name,text,score\na/x.png,42,1.5\n./b/c/x.png,a cat,7\n"
    )
    path = str(tmp_path)
    shards = shards_of(path)
    assert [records.texts(r) for r in everything(shards)] == [["42"], ["a cat"]]
    assert [float(s.table["column:score"][0]) for s in shards] == [1.5, 7.0]
    (tmp_path / "b" / "metadata.jsonl").write_text(
        '{"file_name": "c/x.png", "text": "nearer"}'
    )
    for cache in (folder_format.tables, folder_format.rows_of):
        cache.cache_clear()
    assert [records.texts(r) for r in everything(shards_of(path))][1] == ["nearer"]


def test_fields_choose_among_members_and_columns(tmp_path):
    import pyarrow
    import pyarrow.parquet

    row = {"thumb": b"x", "image": making.picture(3), "text": "a", "alt": "b"}
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet"
    )
    path = str(tmp_path)
    (plain,) = everything(shards_of(path))
    assert plain.picture == making.picture(3) and records.texts(plain) == ["a"]
    (chosen,) = everything(shards_of(path, records.Fields("thumb", "alt")))
    assert chosen.picture == b"x" and records.texts(chosen) == ["b"]


@pytest.mark.parametrize("kind", ["webdataset", "tfrecord", "parquet", "array_record"])
def test_a_file_cut_in_the_middle_gives_what_lies_before(tmp_path, kind):
    path = making.write(tmp_path, kind, [making.picture(i) for i in range(32)])
    names = finding.find(path)[1]
    last = pathlib.Path(names[1])
    data = last.read_bytes()
    last.write_bytes(data[: len(data) // 2])
    shards = shards_of(path)
    causes = [index.CAUSES[c] for shard in shards for c in shard.table["cause"]]
    assert causes[:16] == [""] * 16
    # Parquet and ArrayRecord keep their lists at the end: all of such a file is lost.
    if kind in ("parquet", "array_record"):
        assert causes[16:] == ["unreadable"]
    else:
        assert causes[16:].count("") >= 6 and causes[-1] != ""
    kept, refused = collection.taken(shards, collection.Filter(), 0.0, "train")
    assert len(kept) == causes.count("") and refused["sound"] == len(causes) - len(kept)


def test_missing_members_are_counted(tmp_path):
    import io
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (
            ("0.png", making.picture(0)),
            ("0.txt", b"whole"),
            ("1.png", making.picture(1)),
            ("2.txt", b"no picture"),
            ("3.json", b"{}"),
            ("4.png", b""),
            ("4.txt", b"empty"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (shard,) = shards_of(str(tmp_path))
    causes = [index.CAUSES[cause] for cause in shard.table["cause"]]
    assert causes == ["", "no_caption", "no_picture", "no_picture", "no_picture"]


def test_an_index_that_cannot_be_written_is_named(tmp_path):
    path = making.write(tmp_path / "data", "webdataset", [making.picture(0)])
    kind, names = finding.find(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"data\.pictures\.index=DIR"):
        list(index.tables(kind, names, str(tmp_path / "file" / "in"), records.Fields()))


def test_written_messages_are_tensorflows():
    """The wire format, byte for byte as protobuf's own descriptor of it reads it."""
    told = {"b": b"\x00\xff", "f": 1.5, "i": -3, "many": [b"x", b"y"]}
    assert examples.parse(examples.serialise(told)) == told
    # features { feature { key: "i" value { int64_list { value: 5 } } } }
    assert examples.serialise({"i": 5}).hex() == "0a0c0a0a0a01691205" + "1a030a0105"


def test_a_byte_turned_over_in_a_tfrecord_is_found_by_its_checksum(tmp_path):
    path = making.write(tmp_path, "tfrecord", [making.picture(i) for i in range(4)])
    file = pathlib.Path(finding.find(path)[1][0])
    data = file.read_bytes()
    assert data.count(b"number 2") == 1
    (before,) = shards_of(path)
    file.write_bytes(data.replace(b"number 2", b"number 7"))
    assert [r.picture == b"" for r in everything([before])] == [0, 0, 1, 0]
    (shard,) = shards_of(path)
    assert [index.CAUSES[c] for c in shard.table["cause"]] == ["", "", "no_picture", ""]


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_messages_call_a_record_by_its_files_name(tmp_path, kind):
    path = making.write(tmp_path, kind, [making.picture(i) for i in range(3)])
    (shard,) = shards_of(path)
    assert "00002" in shard.key(2) and ", record" not in shard.key(2)
