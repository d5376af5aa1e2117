import json
import pickle
import struct

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from imagen_jax.checkpoints import safetensors as st


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "a/kernel": rng.normal(size=(3, 4)).astype(np.float32),
        "a/bias": rng.normal(size=(5,)).astype(ml_dtypes.bfloat16),
        "b/ü": np.arange(6, dtype=np.int32).reshape(2, 1, 3),
        "b/flag": np.array([True, False, True]),
        "b/small": np.arange(3, dtype=np.uint8),
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 7), np.float16),
    }


@pytest.fixture
def few(arrays):
    return {name: arrays[name] for name in ("a/bias", "b/flag")}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def assert_same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].shape == b[name].shape
        np.testing.assert_array_equal(a[name], b[name])


def write_raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_what_is_saved_is_loaded(path, arrays):
    st.save(path, arrays, {"step": "3", "ü": ""})
    loaded, metadata = st.load(path)
    assert_same(loaded, arrays)
    assert metadata == {"step": "3", "ü": ""}
    assert st.read_names(path) == sorted(arrays)


def test_every_type_survives(path):
    every = {n: np.ones((2, 3)).astype(d) for n, d in st.DTYPES.items()}
    st.save(path, every)
    assert_same(st.load(path)[0], every)


def test_jax_arrays_views_and_big_endian_are_saved_by_value(path):
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    jax_half = jnp.arange(3, dtype=jnp.bfloat16)
    st.save(path, {"t": base.T, "big": base.astype(">f4"), "half": jax_half})
    loaded, _ = st.load(path)
    np.testing.assert_array_equal(loaded["t"], base.T)
    np.testing.assert_array_equal(loaded["big"], base)
    assert loaded["half"].dtype == ml_dtypes.bfloat16


def test_the_reference_library_reads_what_we_write(path, arrays):
    st.save(path, arrays)
    assert_same(safetensors.numpy.load_file(path), arrays)


def test_we_read_what_the_reference_library_writes(path, arrays):
    safetensors.numpy.save_file(arrays, path, metadata={"k": "v"})
    loaded, metadata = st.load(path)
    assert_same(loaded, arrays)
    assert metadata == {"k": "v"}


def test_the_same_arrays_make_the_same_bytes(tmp_path, arrays):
    st.save(tmp_path / "a.safetensors", arrays, {"b": "1", "a": "2"})
    st.save(
        tmp_path / "b.safetensors", dict(reversed(arrays.items())), {"b": "1", "a": "2"}
    )
    one, two = (p.read_bytes() for p in sorted(tmp_path.iterdir()))
    assert one == two


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, arrays):
    class Broken:
        dtype, shape = np.dtype(np.float32), (2,)

        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("lost")

    st.save(path, arrays)
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        st.save(path, {"x": Broken()})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_unwritable_places_and_types_are_clear_errors(path):
    with pytest.raises(ValueError, match="cannot write"):
        st.save(path.parent / "no" / "x.safetensors", {"a": np.ones(2)})
    with pytest.raises(ValueError, match="cannot store 'a'"):
        st.save(path, {"a": np.array(["text"])})
    with pytest.raises(ValueError, match="metadata"):
        st.save(path, {}, {"a": 1})
    assert not path.exists()


def test_every_truncation_is_a_clear_error(path, few):
    st.save(path, few, {"k": "v"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.safetensors") as error:
            st.load(path)
        assert "\n" not in str(error.value)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        st.load(path)


def test_every_flipped_bit_is_an_error_or_harmless(path, few):
    # The name of the checksum's own entry is all that may be lost unnoticed.
    st.save(path, few, {"k": "v"})
    whole = bytearray(path.read_bytes())
    unnoticed = 0
    for bit in range(8 * len(whole)):
        whole[bit // 8] ^= 1 << bit % 8
        path.write_bytes(whole)
        try:
            loaded, _ = st.load(path)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert_same(loaded, few)
            unnoticed += 1
        whole[bit // 8] ^= 1 << bit % 8
    assert unnoticed <= 8 * len(st.CHECKSUM)


def test_random_headers_never_crash(path):
    rng = np.random.default_rng(0)
    for size in rng.integers(0, 200, 300):
        write_raw(path, rng.integers(0, 256, size, dtype=np.uint8).tobytes())
        with pytest.raises(ValueError, match="model"):
            st.load(path)


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 3},
        {"a": {}},
        {"a": {**F32, "more": 1}},
        {"a": {**F32, "dtype": "F31"}},
        {"a": {**F32, "dtype": ["F32"]}},
        {"a": {**F32, "shape": [-1]}},
        {"a": {**F32, "shape": [True]}},
        {"a": {**F32, "shape": [1.0]}},
        {"a": {**F32, "shape": [2**62, 2**62]}},
        {"a": {**F32, "shape": [1] * 100}},
        {"a": {**F32, "shape": [2]}},
        {"a": {**F32, "data_offsets": [4, 8]}},
        {"a": {**F32, "data_offsets": [4, 0]}},
        {"a": {**F32, "data_offsets": [0]}},
        {"a": F32, "b": F32},
        {"__metadata__": {"a": 1}, "a": F32},
        {"__metadata__": {st.CHECKSUM: "zz"}, "a": F32},
        b'{"a":'
        + json.dumps(F32).encode()
        + b',"a":'
        + json.dumps(F32).encode()
        + b"}",
        b"[" * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
        b"\xff\xfe",
    ],
    ids=str,
)
def test_impossible_headers_are_clear_errors(path, header):
    write_raw(path, header, b"\0" * 4)
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        st.load(path)


def test_a_header_length_beyond_the_file_allocates_nothing(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ValueError, match="header length"):
        st.load(path)


def test_a_byte_that_is_no_bool_is_an_error(path):
    entry = {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}
    write_raw(path, {"a": entry}, b"\x02")
    with pytest.raises(ValueError, match="no bool"):
        st.load(path)


@pytest.mark.parametrize("name", ["m.bin", "m.ckpt", "m.pt"])
def test_pickles_are_refused_by_name(tmp_path, name):
    with pytest.raises(ValueError, match=r"pickle.*\.safetensors"):
        st.load(tmp_path / name)


@pytest.mark.parametrize("protocol", [2, 5])
def test_pickles_are_refused_by_content(path, protocol):
    path.write_bytes(pickle.dumps({"a": np.ones(30)}, protocol))
    with pytest.raises(ValueError, match="pickle"):
        st.load(path)


def test_torch_archives_are_refused_by_content(path):
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(ValueError, match="pickle"):
        st.load(path)


def test_a_header_length_that_begins_like_a_pickle_is_read(path):
    text = json.dumps({"a": F32}).encode()
    text += b" " * (0x0280 - len(text))
    path.write_bytes(struct.pack("<Q", 0x0280) + text + b"\0" * 4)
    assert list(st.load(path)[0]) == ["a"]


def test_missing_files_and_folders_are_clear_errors(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        st.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="not a file"):
        st.load(tmp_path)


def test_flatten_and_unflatten_are_inverse():
    tree = {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
    flat = st.flatten(tree)
    assert flat == {"a/b/c": 1, "a/d": 2, "e": 3}
    assert st.unflatten(flat) == tree


@pytest.mark.parametrize("tree", [{"a/b": 1}, {"": 1}, {3: 1}])
def test_flatten_refuses_keys_that_do_not_come_back(tree):
    with pytest.raises(ValueError, match="flatten"):
        st.flatten(tree)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_unflatten_refuses_a_leaf_that_is_a_folder(names):
    with pytest.raises(ValueError, match="both an array and the folder"):
        st.unflatten(dict.fromkeys(names, 0))
