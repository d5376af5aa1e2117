import ml_dtypes
import numpy as np
import pytest

from imagen_jax.checkpoints import safetensors, safetensors_writer

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(5).astype(ml_dtypes.bfloat16),
    "c": np.arange(-3, 4, dtype=np.int8),
    "empty": np.zeros((0, 3), np.float16),
}
SHAPES = {name: (a.dtype, a.shape) for name, a in ARRAYS.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "text.safetensors"


def begun(path, identity="here"):
    return safetensors_writer.Writer(path, SHAPES, {"network": "text"}, identity)


def stop_after(path, *names):
    with begun(path) as writer:
        for name in names:
            writer.write(name, ARRAYS[name])


def finish(path, identity="here"):
    """Write what is missing; the names of that."""
    written = []
    with begun(path, identity) as writer:
        for name, array in ARRAYS.items():
            if not writer.has(name):
                writer.write(name, array)
                written.append(name)
        writer.finish()
    return written


def test_arrays_in_any_order_make_the_file_of_save(path, tmp_path):
    finish(path)
    safetensors.save(tmp_path / "saved", ARRAYS, {"network": "text"})
    assert path.read_bytes() == (tmp_path / "saved").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["saved", path.name]


def test_nothing_has_the_name_before_it_is_whole(path):
    with begun(path) as writer:
        writer.write("a", ARRAYS["a"])
        assert not path.exists()
        with pytest.raises(ValueError, match=r"text\.safetensors lacks b"):
            writer.finish()
    assert not path.exists()


def test_a_stopped_file_is_gone_on_with(path):
    stop_after(path, "c", "a")
    with begun(path) as writer:
        assert writer.missing == 5 * 2
    assert finish(path) == ["b", "empty"]
    np.testing.assert_array_equal(safetensors.load(path)[0]["a"], ARRAYS["a"])


def test_what_a_crash_has_lost_is_written_again(path):
    stop_after(path, "a", "b")
    partial = safetensors_writer.partial_of(path)
    data = bytearray(partial.read_bytes())
    data[data.index(ARRAYS["a"].tobytes()) + 9] ^= 1
    partial.write_bytes(data)
    assert finish(path) == ["a", "c", "empty"]
    assert safetensors.load(path)[0]["a"][0, 2] == 2


@pytest.mark.parametrize("end", ['{"name": "b", "crc', "[]\n", '{"name": 3}\n'])
def test_a_torn_journal_counts_up_to_its_damage(path, end):
    stop_after(path, "a")
    with open(safetensors_writer.journal_of(path), "a") as journal:
        journal.write(end)
    assert finish(path) == ["b", "c", "empty"]


def test_a_partial_file_of_another_origin_is_begun_again(path):
    stop_after(path, "a", "b")
    assert finish(path, "elsewhere") == list(ARRAYS)


def test_an_array_must_be_as_announced(path):
    with begun(path) as writer:
        for wrong in (ARRAYS["a"].T, ARRAYS["a"].astype(np.float16)):
            with pytest.raises(ValueError, match=r"a of .* must be float32"):
                writer.write("a", wrong)
