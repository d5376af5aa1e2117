"""Damage a t5x checkpoint many times and read it, in 1 GB: a process of its own.

    python damage_t5x.py FOLDER CASES

Prints how many cases were refused by name. Anything else than that or the arrays as
they were ends it, as does an allocation beyond the limit or a crash.
"""

import pathlib
import resource
import sys

import numpy as np

from imagen_jax.checkpoints import safetensors, t5x, tensors

LIMIT = 10**9  # bytes beyond what the libraries have mapped


def read(folder, shapes=None):
    opened = t5x.open_folder(folder)
    if shapes is None:
        return {name: opened.read(name) for name in opened.names()}
    table = {n: tensors.Source((n,)) for n in safetensors.flatten(shapes)}
    tensors.check(opened, table, shapes)
    return dict(tensors.stream(opened, table))


def has_checksum(path: pathlib.Path) -> bool:
    """Whether a flipped bit can be seen: not in chunks of zstd, as Orbax writes."""
    described = path.with_name(".zarray")
    if path == described or not described.exists():
        return True
    return '"zstd"' not in described.read_text()


def damage(random, data: bytes, *, flip: bool) -> bytes:
    if not data or not flip or random.random() < 0.3:
        return data[: int(random.integers(max(len(data), 1)))]
    flipped = bytearray(data)
    for _ in range(int(random.integers(1, 3))):
        flipped[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    return bytes(flipped)


def main(folder: str, cases: int) -> None:
    random, root = np.random.default_rng(4), pathlib.Path(folder)
    whole = read(root)
    shapes = safetensors.unflatten(whole)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    mapped = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = mapped * resource.getpagesize() + LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    refused = 0
    for i in range(cases):
        path = files[i % len(files)]
        data = path.read_bytes()
        path.write_bytes(damage(random, data, flip=has_checksum(path)))
        try:
            got = read(root, shapes)
        except ValueError as error:
            assert str(root) in str(error) and "\n" not in str(error), error
            refused += 1
        else:
            for name, array in whole.items():
                np.testing.assert_array_equal(got[name], array, err_msg=str(path))
        path.write_bytes(data)
    print(refused)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
