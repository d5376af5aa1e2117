"""Stopped anywhere, on any number of hosts: the stream is the uninterrupted one's."""

import random

import pytest

from tests.data import drill, making


@pytest.mark.parametrize("kind", making.FORMATS)
def test_twenty_stops_over_one_two_and_four_hosts(kind, tmp_path):
    pictures = [making.picture(i) for i in range(drill.PICTURES)]
    path = making.write(tmp_path, kind, pictures)
    draw = random.Random(1)
    seen = []
    for stop in range(20):
        hosts = (*drill.HOSTS, 1)[stop % 4]
        streams = [
            drill.reader_of(path, host, hosts).batches(len(seen))
            for host in range(hosts)
        ]
        for _ in range(draw.randrange(1, 5)):
            seen += [number for s in streams for number in drill.ids(next(s))]
        for stream in streams:
            stream.close()
    assert seen == drill.uninterrupted(path, len(seen) // drill.BATCH)
    # About 54 records are trained on: each epoch has every one once.
    size = len(set(seen))
    assert 40 <= size < drill.PICTURES
    for start in range(0, len(seen) - size, size):
        assert len(set(seen[start : start + size])) == size


@pytest.mark.slow
def test_a_killed_process_is_gone_on_from(tmp_path):
    pictures = [making.picture(i) for i in range(drill.PICTURES)]
    path = making.write(tmp_path / "data", "webdataset", pictures)
    assert drill.drill(path, 3, tmp_path) >= 3 * drill.BATCH
