"""A thousand damaged checkpoints: each is refused by name, or read as if it were whole.

A flipped bit inside an array of a foreign safetensors file, or of a chunk that Orbax
compressed, cannot be seen, since they have no checksum; in files and directories that
this package wrote it is.
"""

import json
import os
import pathlib
import struct
import subprocess
import sys
import tracemalloc
import types

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors import numpy as foreign

from imagen_jax.checkpoints import (
    huggingface,
    manifest,
    model_directory,
    safetensors,
    tensors,
)
from tests.checkpoints import test_t5x

CASES = 250  # of each kind
T5X_CASES = 60  # of each kind
MOST = 50_000_000  # bytes that reading a damaged file may allocate
ARRAYS = {
    "encoder.kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "encoder.bias": np.arange(4, dtype=np.float16),
    "shared": np.arange(10, dtype=np.int32).reshape(5, 2),
}
SHAPES = {n: types.SimpleNamespace(shape=a.shape) for n, a in ARRAYS.items()}
TABLE = {name: tensors.Source((name,)) for name in ARRAYS}
PARAMETERS = {
    "kernel": np.arange(2048, dtype=np.float32).reshape(64, 32) / 7,
    "bias": np.ones(3, np.float32),
}
HUGE = (0, 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 10**30, -1)


@pytest.fixture(autouse=True)
def little_memory():
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST


def damage(random, data: bytes, header: int) -> bytes:
    """One of seven kinds of damage, bits flipped only before `header`."""
    kind = random.integers(7)
    at = int(random.integers(header))
    if kind == 0:  # cut short
        return data[: int(random.integers(len(data)))]
    if kind == 1:  # something behind it
        return data + random.bytes(int(random.integers(1, 64)))
    if kind == 2:  # an absurd length, also with a beginning like a pickle's
        length = int(random.choice([7, 2**20, 2**40, 2**63 - 1, 0x04034B50, 0x0480]))
        return struct.pack("<Q", length) + data[8:]
    if kind == 3:  # a lost block
        end = min(header, at + int(random.integers(1, 16)))
        return data[:at] + bytes(end - at) + data[end:]
    if kind == 4:  # an absurd number
        return with_number(random, data, header)
    flipped = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        flipped[int(random.integers(header))] ^= 1 << int(random.integers(8))
    return bytes(flipped)


def with_number(random, data: bytes, header: int) -> bytes:
    """One of the header's numbers replaced; its length is made to fit."""
    text = data[8:header].decode()
    table = json.loads(text)
    entry = table[str(random.choice([name for name in table if name[0] != "_"]))]
    numbers = entry[str(random.choice(["shape", "data_offsets"]))]
    numbers[int(random.integers(len(numbers)))] = HUGE[random.integers(len(HUGE))]
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data[header:]


def header_of(data: bytes) -> int:
    return 8 + struct.unpack("<Q", data[:8])[0]


def is_refused(read, expected, place: pathlib.Path) -> bool:
    """Whether reading raised a clear error; if not, it gave what was written."""
    try:
        got = read()
    except ValueError as error:
        assert str(place) in str(error) and "\n" not in str(error)
        return True
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)
    return False


def transfer(folder):
    return tensors.transfer(huggingface.open_folder(folder), TABLE, SHAPES)


def test_our_files_refuse_every_damage(tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "model.safetensors"
    safetensors.save(path, ARRAYS, {"network": "text"})
    whole = path.read_bytes()
    refused = 0
    for i in range(CASES):
        # Every second one anywhere, the others where it is hardest.
        until = len(whole) if i % 2 else header_of(whole)
        if until == len(whole):
            data = bytearray(whole)
            data[int(random.integers(header_of(whole), until))] ^= 1 << i % 8
        else:
            data = damage(random, whole, until)
        path.write_bytes(data)
        refused += is_refused(lambda: safetensors.load(path)[0], ARRAYS, path)
    # All that may pass is damage to the checksum's own name.
    assert refused >= CASES - 5


def test_foreign_files_refuse_every_damage_but_to_values(tmp_path):
    random, path = np.random.default_rng(1), tmp_path / "model.safetensors"
    foreign.save_file(ARRAYS, path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(CASES):
        path.write_bytes(damage(random, whole, header_of(whole)))
        refused += is_refused(lambda: transfer(tmp_path), ARRAYS, path)
    # The header's end is filled with blanks, of which some may be lost.
    assert refused >= 0.95 * CASES


def bad_index(random, text: bytes) -> bytes:
    """An index that is damaged, or names what it must not."""
    kind = random.integers(4)
    if kind == 0:
        return text[: int(random.integers(len(text)))]
    if kind == 1:
        flipped = bytearray(text)
        flipped[int(random.integers(len(text)))] ^= 1 << int(random.integers(8))
        return bytes(flipped)
    table = json.loads(text)
    names = sorted(table["weight_map"])
    name = names[random.integers(len(names))]
    if kind == 2:
        del table["weight_map"][name]
    else:
        outside = ("../x.safetensors", "/x.safetensors", "a.bin", "", 3, None, [], {})
        table["weight_map"][name] = outside[random.integers(len(outside))]
    return json.dumps(table).encode()


def test_sharded_folders_refuse_every_damage_but_to_values(tmp_path):
    random = np.random.default_rng(2)
    files = {name: f"model-{i}.safetensors" for i, name in enumerate(ARRAYS)}
    for name, file in files.items():
        foreign.save_file({name: ARRAYS[name]}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    refused = 0
    for i in range(CASES):
        shard = tmp_path / files[list(files)[i % len(files)]]
        path = index if i % 3 else shard
        whole = path.read_bytes()
        if i % 10 == 0:
            path.unlink()
        elif path == index:
            path.write_bytes(bad_index(random, whole))
        else:
            path.write_bytes(damage(random, whole, header_of(whole)))
        refused += is_refused(lambda: transfer(tmp_path), ARRAYS, tmp_path)
        path.write_bytes(whole)
    assert refused >= 0.95 * CASES


def test_model_directories_refuse_every_damage(tmp_path):
    random, folder = np.random.default_rng(3), tmp_path / "model"
    stages = [{"kind": "stage", "name": "base", "stage": {"resolution": 64}}]
    model_directory.write(folder, stages, {"base": PARAMETERS}, "int8")
    (folder / "spiece.model").write_bytes(bytes(range(256)))
    files = {path.name: manifest.entry(path) for path in folder.iterdir()}
    manifest.write(folder, {"format": "t5"}, files)
    read_stage = model_directory.parameters(folder, "base")
    wholes = {path.name: path.read_bytes() for path in folder.iterdir()}

    def read():
        described = model_directory.read(folder)
        assert described.stages == stages
        assert (folder / "spiece.model").read_bytes() == wholes["spiece.model"]
        return read_stage(PARAMETERS)

    expected = read()
    refused = 0
    for i in range(CASES):
        name = sorted(wholes)[i % len(wholes)]
        whole = wholes[name]
        if i % 3 == 0:
            data = whole[: int(random.integers(len(whole)))]
        elif i % 3 == 1 or name != "base.safetensors":
            flipped = bytearray(whole)
            flipped[int(random.integers(len(whole)))] ^= 1 << int(random.integers(8))
            data = bytes(flipped)
        else:
            data = damage(random, whole, header_of(whole))
        (folder / name).write_bytes(data)
        was_refused = is_refused(read, expected, folder)
        # Of a manifest what it says of the origin may change unnoticed.
        assert was_refused or name == "manifest.json" or data == whole
        refused += was_refused
        (folder / name).write_bytes(whole)
    assert refused >= 0.9 * CASES


@pytest.mark.parametrize("kind", ["legacy", "orbax", "ocdbt"])
def test_t5x_checkpoints_refuse_every_damage_in_a_gigabyte(tmp_path, kind):
    folder = tmp_path / "checkpoint_1000"
    if kind == "legacy":
        test_t5x.write_legacy(folder)
    else:
        handler = ocp.PyTreeCheckpointHandler(use_ocdbt=kind == "ocdbt")
        tree = {"target": safetensors.unflatten(test_t5x.FLAT)}
        with ocp.Checkpointer(handler) as writer:
            tree = jax.tree.map(jax.numpy.asarray, tree)
            writer.save(folder, args=ocp.args.PyTreeSave(tree))
    script = pathlib.Path(__file__).with_name("damage_t5x.py")
    done = subprocess.run(
        [sys.executable, script, folder, str(T5X_CASES)],
        env=os.environ | {"PYTHONPATH": str(script.parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Not every file of a step is read: the others say how it was sharded and saved.
    assert int(done.stdout) >= T5X_CASES / 6
