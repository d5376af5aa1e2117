"""Read, be killed, and go on with another number of hosts: the drill and its worker.

`python -m tests.data.drill FOLDER [KILLS]` runs it over every format with real
processes and SIGKILL, and prints how many examples were compared.
"""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

from imagen_jax.data import picture_task, readers
from imagen_jax.text import tokenizer
from tests.data import making

BATCH = 8
HOSTS = (1, 2, 4)
PICTURES = 60


def reader_of(path: str, host: int, hosts: int) -> readers.Reader:
    settings = picture_task.PictureSettings(path=path, heldout=0.1)
    source = picture_task.source(settings, "train", resolution=16, batch_size=BATCH)
    return readers.Reader(
        source=source,
        tokenizer=tokenizer.ByteTokenizer(),
        batch_size=BATCH,
        length=32,
        resolution=16,
        seed=5,
        host_index=host,
        host_count=hosts,
        truncate=True,
    )


def ids(batch) -> list[int]:
    return [making.number_of(image) for image in batch["image"]]


def uninterrupted(path: str, batches: int) -> list[int]:
    stream = reader_of(path, 0, 1).batches()
    return [number for _ in range(batches) for number in ids(next(stream))]


def work(path: str, start: int, host: int, hosts: int, log: str) -> None:
    """Read for ever, a line for each batch; only SIGKILL ends it."""
    with open(log, "w") as file:
        for batch in reader_of(path, host, hosts).batches(start):
            file.write(json.dumps(ids(batch)) + "\n")
            file.flush()
            time.sleep(0.002)


def lines(log: pathlib.Path) -> list[list[int]]:
    """The batches that a worker has wholly told of."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def run_until_killed(
    path: str, start: int, hosts: int, least: int, folder: pathlib.Path
) -> list[int]:
    """Start all hosts, kill them after some batches; the ids that all have seen."""
    logs = [folder / f"host{host}.log" for host in range(hosts)]
    for log in logs:
        log.unlink(missing_ok=True)
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.data.drill", "worker", path, str(start),
             str(host), str(hosts), str(log)]
        )
        for host, log in enumerate(logs)
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while min(len(lines(log)) for log in logs) < least:
            assert time.monotonic() < deadline, "a reader hangs"
            assert all(worker.poll() is None for worker in workers), "a reader ended"
            time.sleep(0.01)
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    told = [lines(log) for log in logs]
    whole = min(len(batches) for batches in told)
    return [number for k in range(whole) for batches in told for number in batches[k]]


def drill(path: str, kills: int, folder: pathlib.Path, seed: int = 0) -> int:
    """Kill at random points, each time with another number of hosts; compare.

    Returns how many examples were compared.
    """
    draw = random.Random(seed)
    seen: list[int] = []
    for kill in range(kills):
        hosts = (*HOSTS, 1)[kill % 4]
        seen += run_until_killed(path, len(seen), hosts, draw.randrange(1, 12), folder)
    expected = uninterrupted(path, len(seen) // BATCH)
    assert seen == expected, "the stream differs from an uninterrupted one"
    return len(seen)


def main(arguments: list[str]) -> None:
    if arguments[0] == "worker":
        path, start, host, hosts, log = arguments[1:]
        work(path, int(start), int(host), int(hosts), log)
        return
    folder = pathlib.Path(arguments[0])
    kills = int(arguments[1]) if len(arguments) > 1 else 20
    for kind in making.FORMATS:
        pictures = [making.picture(i) for i in range(PICTURES)]
        path = making.write(folder / kind, kind, pictures)
        compared = drill(path, kills, folder)
        print(f"{kind}: {kills} kills, {compared} examples in order", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
