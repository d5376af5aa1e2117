import gzip
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tracemalloc

import flax.serialization
import jax
import ml_dtypes
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest

from imagen_jax.checkpoints import safetensors, t5x, tensors
from tests.checkpoints import object_store

ROOT = pathlib.Path(__file__).parents[2]
RNG = np.random.default_rng(0)
FLAT = {
    "token_embedder/embedding": RNG.normal(size=(10, 6)).astype(np.float32),
    "encoder/layers_0/mlp/wi_0/kernel": RNG.normal(size=(6, 7)).astype(
        ml_dtypes.bfloat16
    ),
    "encoder/encoder_norm/scale": RNG.normal(size=(6,)).astype(np.float32),
    "decoder/logits_dense/kernel": RNG.normal(size=(6, 10)).astype(np.float32),
}
ENCODER = {name for name in FLAT if not name.startswith("decoder")}
KERNEL, SCALE = "encoder/layers_0/mlp/wi_0/kernel", "encoder/encoder_norm/scale"


def write_zarr(folder, array, chunks):
    """Zarr version 2 as its specification has it, with whole chunks at the edges."""
    folder.mkdir()
    kind = "bfloat16" if array.dtype == ml_dtypes.bfloat16 else array.dtype.str
    described = {
        "zarr_format": 2,
        "shape": array.shape,
        "chunks": chunks,
        "dtype": kind,
        "compressor": {"id": "gzip", "level": 1},
        "fill_value": None,
        "filters": None,
        "order": "C",
        "dimension_separator": ".",
    }
    (folder / ".zarray").write_text(json.dumps(described))
    counts = [-(-n // c) for n, c in zip(array.shape, chunks, strict=True)]
    for at in itertools.product(*map(range, counts)):
        part = np.zeros(chunks, array.dtype)
        cut = array[tuple(slice(i * c, i * c + c) for i, c in zip(at, chunks))]  # noqa: B905
        part[tuple(map(slice, cut.shape))] = cut
        (folder / ".".join(map(str, at))).write_bytes(gzip.compress(part.tobytes()))


def as_spec(name, array, chunks):
    return {
        "driver": "zarr",
        "dtype": "bfloat16" if array.dtype == ml_dtypes.bfloat16 else "float32",
        "kvstore": {"driver": "file", "path": f"{name}/"},
        "metadata": {"chunks": list(chunks), "shape": list(array.shape)},
        "transform": {"input_inclusive_min": [0] * array.ndim},
    }


def write_legacy(folder, flat=FLAT, leaf=as_spec):
    """As t5x did: matrices in chunks beside the file, vectors within it."""
    folder.mkdir()
    leaves = {}
    for name, array in flat.items():
        path = f"target.{name.replace('/', '.')}"
        leaves[name] = array
        if array.ndim > 1:
            chunks = (4, array.shape[1] // 2)
            write_zarr(folder / path, array, chunks)
            leaves[name] = leaf(path, array, chunks)
    optimizer = {
        "target": safetensors.unflatten(leaves),
        "state": {"step": np.int32(7), "param_states": {"m": np.ones(3)}},
    }
    tree = {"version": 3, "optimizer": optimizer}
    data = flax.serialization.msgpack_serialize(tree)
    (folder / "checkpoint").write_bytes(data)
    return folder


def assert_holds(opened, flat=FLAT):
    assert isinstance(opened, tensors.Tensors)
    assert opened.names() == sorted(flat)
    for name, array in flat.items():
        assert opened.shape(name) == array.shape and opened.dtype(name) == array.dtype
        got = opened.read(name)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


@pytest.fixture
def legacy(tmp_path):
    return write_legacy(tmp_path / "checkpoint_1000")


@pytest.mark.parametrize("kind", ["spec", "placeholder"])
def test_legacy_checkpoints_are_read_by_the_names_of_their_parameters(tmp_path, kind):
    leaf = as_spec if kind == "spec" else lambda name, *_: f"PLACEHOLDER://{name}"
    folder = write_legacy(tmp_path / "checkpoint_1000", leaf=leaf)
    assert len(list((folder / "target.token_embedder.embedding").glob("[0-9]*"))) == 6
    assert_holds(t5x.open_folder(folder))


@pytest.mark.parametrize("ocdbt", [False, True])
@pytest.mark.parametrize("root", ["target", "params"])
def test_orbax_checkpoints_are_read_alike(tmp_path, ocdbt, root):
    folder = tmp_path / "checkpoint_1000"
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
    tree = {root: safetensors.unflatten(FLAT), "state": {"step": np.int32(7)}}
    with ocp.Checkpointer(handler) as writer:
        tree = jax.tree.map(jax.numpy.asarray, tree)
        writer.save(folder / "state", args=ocp.args.PyTreeSave(tree))
    assert (folder / "state" / "manifest.ocdbt").exists() == ocdbt
    assert_holds(t5x.open_folder(folder))


def test_a_tree_without_a_root_is_the_parameters(tmp_path):
    tree = safetensors.unflatten({SCALE: FLAT[SCALE]})
    data = flax.serialization.msgpack_serialize(tree)
    (tmp_path / "checkpoint").write_bytes(data)
    assert_holds(t5x.open_folder(tmp_path), {SCALE: FLAT[SCALE]})


def test_what_is_not_asked_for_is_not_read(legacy):
    for path in (legacy / "target.decoder.logits_dense.kernel").iterdir():
        path.unlink()
    opened = t5x.open_folder(legacy)
    assert "decoder/logits_dense/kernel" in opened.names()
    for name in ENCODER:
        np.testing.assert_array_equal(opened.read(name), FLAT[name])


def test_an_object_store_is_read_as_a_disk(legacy):
    pytest.importorskip("gcsfs")
    code = (
        "import sys; from imagen_jax.checkpoints import t5x;"
        "c = t5x.open_folder('gs://bucket/t5/checkpoint_1000');"
        "print(len(c.names()), *(float(c.read(n).sum()) for n in sys.argv[1:]))"
    )
    with object_store.running() as objects:
        for path in legacy.rglob("*"):
            if path.is_file():
                name = path.relative_to(legacy.parent)
                objects.there[f"bucket/t5/{name}"] = (path.read_bytes(), 1)
        done = subprocess.run(
            [sys.executable, "-c", code, *sorted(ENCODER)],
            env=os.environ | objects.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    number, *sums = done.stdout.split()
    assert int(number) == len(FLAT)
    expected = [float(FLAT[name].sum()) for name in sorted(ENCODER)]
    np.testing.assert_allclose([float(s) for s in sums], expected, rtol=1e-6)


def truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def restate(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("1.0", pathlib.Path.unlink),
        ("1.0", truncate),
        ("1.0", flip),
        ("1.0", lambda path: path.write_bytes(gzip.compress(b"short"))),
        (".zarray", pathlib.Path.unlink),
        (".zarray", truncate),
        (".zarray", lambda path: restate(path, shape=[-1, 7])),
        (".zarray", lambda path: restate(path, dtype="|O")),
        (".zarray", lambda path: restate(path, chunks=[2**20, 2**20])),
        (".zarray", lambda path: restate(path, chunks=[4, 2])),
        (".zarray", lambda path: restate(path, compressor={"id": "pickle"})),
    ],
)
def test_damaged_chunks_are_an_error_with_their_folder(legacy, file, damage):
    damage(legacy / f"target.{KERNEL.replace('/', '.')}" / file)
    opened = t5x.open_folder(legacy)
    match = r"target\.encoder\.layers_0\.mlp\.wi_0\.kernel is damaged"
    with pytest.raises(ValueError, match=match):
        opened.read(KERNEL)
    np.testing.assert_array_equal(opened.read(SCALE), FLAT[SCALE])


def test_an_absurd_shape_is_refused_before_it_is_allocated(legacy):
    restate(legacy / f"target.{KERNEL.replace('/', '.')}" / ".zarray", shape=[2**40, 7])
    shapes = {"encoder": {"layers_0": {"mlp": {"wi_0": {"kernel": np.zeros((6, 7))}}}}}
    with pytest.raises(ValueError, match=r"must give encoder/.*1099511627776"):
        tensors.transfer(
            t5x.open_folder(legacy),
            {KERNEL: tensors.Source((KERNEL,))},
            shapes,
            unused=lambda name: True,
        )


def array_of(shape, kind, data):
    return msgpack.packb(
        {"a": msgpack.ExtType(1, msgpack.packb((shape, kind, data)))},
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x81",
        b"\xdd\xff\xff\xff\xff",  # an array of 2**32 - 1
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",  # a mapping
        b"\x81\xa1a\xc6\xff\xff\xff\xff",  # bytes
        b"\x81\xa1a\xdb\xff\xff\xff\xff",  # a string
        b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",  # an extension
        b"\x81\xa1a" * 100_000,
        b"\x81\xa1a" * 200 + b"\x80",
        b"\x91" * 2000,
        b"\x82\xa1a\x01\xa1a\x02",  # a name twice
        b"\x81\x01\x02",
        msgpack.packb({"a/b": 1}),
        msgpack.packb({"a": "PLACEHOLDER://../elsewhere"}),
        msgpack.packb({"a": "PLACEHOLDER://"}),
        msgpack.packb({"a": {"driver": "zarr", "kvstore": {"path": "/etc"}}}),
        msgpack.packb({"a": {"driver": "zarr", "kvstore": 3}}),
        msgpack.packb({"a": {"driver": "n5", "kvstore": {"path": "a"}}}),
        msgpack.packb({"a": msgpack.ExtType(5, b"")}),
        msgpack.packb({"a": msgpack.ExtType(1, b"\xdd\xff\xff\xff\xff")}),
        array_of([2**40], "float32", b"1234"),
        array_of([2], "float32", b"1234"),
        array_of([-1], "float32", b"1234"),
        array_of([1], "object", b"1234"),
        array_of([4], "bool", b"1234"),
        array_of(4, "int8", b"1234"),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb([[1], "int8"]))}),
    ],
)
def test_a_hostile_table_of_contents_is_refused_and_allocates_nothing(tmp_path, data):
    (tmp_path / "checkpoint").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"t5x: .*checkpoint is damaged"):
        t5x.open_folder(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * len(data) + 2**20


def test_any_flipped_bit_or_cut_end_is_an_error_or_harmless(legacy):
    path = legacy / "checkpoint"
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        if rng.random() < 0.3:
            del data[rng.integers(len(data)) :]
        else:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            opened = t5x.open_folder(legacy)
            for name in opened.names():
                opened.read(name)
        except ValueError as error:
            assert str(error).startswith("t5x: "), error
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"tree_metadata": []}', '{"tree_metadata": {"a": {}}}'],
)
def test_a_damaged_orbax_table_is_named(tmp_path, text):
    (tmp_path / "_METADATA").write_text(text)
    with pytest.raises(ValueError, match="_METADATA is damaged"):
        t5x.open_folder(tmp_path)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="neither checkpoint nor _METADATA"):
        t5x.open_folder(tmp_path)
    with pytest.raises(ValueError, match="there is no folder"):
        t5x.open_folder(tmp_path / "none")
