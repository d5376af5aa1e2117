"""Two thousand damaged inputs: none crashes or hangs a run, each is counted."""

import collections

import pytest

from imagen_jax.data import checking, index, picture_task, records
from tests.data import making

GOOD = 200
# What each kind of damage may be called.
CAUSES = {
    "cut JPEG": {"truncated", "not_a_picture"},
    "cut PNG": {"truncated"},
    "cut WebP": {"truncated", "not_a_picture"},
    "bytes turned over in a PNG": {"truncated", "not_a_picture", "too_large"},
    "a web page": {"not_a_picture"},
    "random bytes": {"not_a_picture", "truncated"},
    "an empty file": {"no_picture"},
    "zeros": {"not_a_picture", "truncated"},
    "a bomb": {"too_large"},
    "only a header": {"not_a_picture", "truncated"},
    "an empty caption": {"no_caption"},
    "a binary caption": {"bad_caption"},
    "floating point": {"unsupported"},
}


def write_damaged(folder, number):
    """Tars of good pictures and damaged ones between them; the kinds by their row."""
    import io
    import tarfile

    folder.mkdir()
    kinds = []
    every = number // GOOD
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i in range(number):
            some = [(*making.damaged(i), f"{i:06d}")]
            if i % every == 0 and len(kinds) - i < GOOD:
                good = i // every
                text = making.caption(good).encode()
                some.append(("", making.picture(good % 512), text, f"{i:06d}good"))
            for kind, data, text, name in some:
                kinds.append(kind)
                for suffix, part in (("jpg", data), ("txt", text)):
                    member = tarfile.TarInfo(f"{name}.{suffix}")
                    member.size = len(part)
                    tar.addfile(member, io.BytesIO(part))
    return kinds


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "tars"
    return str(folder), write_damaged(folder, 2000)


def shards_of(path):
    return picture_task.shards_of(path, "train", "", records.Fields())


def test_a_run_reads_on_and_counts_what_its_table_did_not_show(damaged):
    path, kinds = damaged
    settings = picture_task.PictureSettings(path=path, heldout=0.0, max_bad=1.0)
    source = picture_task.source(settings, "train", resolution=16, batch_size=8)
    assert GOOD <= len(source.contents) < len(kinds)
    for i in range(len(source.contents)):
        image = source.example(0, i, 16)["image"]
        assert image.shape == (16, 16, 3)
    # Every damaged one with a sound header was met, and another stood in for it.
    met = source.tally.bad.total()
    assert met >= len(source.contents) - GOOD > 100
    assert source.tally.read - met == len(source.contents)


def test_check_finds_all_of_them_and_calls_them_by_name(damaged):
    path, kinds = damaged
    found = checking.check(shards_of(path))
    assert found.total == len(kinds) == 2000 + GOOD and found.bad == 2000
    picture_task.shards_of.cache_clear()
    (shard,) = shards_of(path)
    seen = collections.defaultdict(set)
    for kind, cause in zip(kinds, shard.table["cause"].tolist(), strict=True):
        seen[kind].add(index.CAUSES[cause])
    assert seen.pop("") == {""}
    assert seen.keys() == CAUSES.keys()
    for kind, causes in seen.items():
        assert causes <= CAUSES[kind], (kind, causes)
    assert set(found.causes) <= set(checking.pictures.CAUSES)
