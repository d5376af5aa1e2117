import numpy as np
import pytest

from imagen_jax.checkpoints import (
    model_directory,
    quantisation,
    safetensors,
    tensors,
)


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 16, 32)).astype(np.float32)
    kernel[..., 5] *= 100.0
    kernel[..., 6] = 0.0
    return {
        "a/kernel": kernel,
        "a/bias": random.normal(size=4096).astype(np.float32),
        "b/kernel": random.normal(size=(8, 8)).astype(np.float32),
    }


def test_every_number_is_within_half_a_step_of_its_column(arrays):
    stored = quantisation.quantise(arrays)
    assert stored["a/kernel"].dtype == np.int8
    scale = stored["a/kernel" + quantisation.SCALE]
    kernel = arrays["a/kernel"]
    np.testing.assert_allclose(scale, np.abs(kernel).max((0, 1, 2)) / 127, rtol=1e-6)
    error = np.abs(quantisation.restore(stored)["a/kernel"] - kernel)
    assert (error <= 0.501 * scale).all() and error.max() > 0.4 * scale.max()


def test_vectors_and_small_matrices_stay(arrays):
    restored = quantisation.restore(quantisation.quantise(arrays))
    assert restored.keys() == arrays.keys()
    for name in ("a/bias", "b/kernel"):
        np.testing.assert_array_equal(restored[name], arrays[name])


def test_a_scale_without_its_array_is_refused(arrays):
    stored = quantisation.quantise(arrays)
    wrong = {**stored, "a/kernel": stored["a/kernel"][..., :31]}
    for bad in ({"x@scale": np.ones(3, np.float32)}, wrong):
        with pytest.raises(ValueError, match="belongs to no int8 array"):
            quantisation.restore(bad)


def test_an_int8_array_without_its_scale_is_refused(arrays):
    stored = quantisation.quantise(arrays)
    del stored["a/kernel" + quantisation.SCALE]
    with pytest.raises(ValueError, match="a/kernel has no scale"):
        quantisation.restore(stored)


def test_a_model_directory_keeps_int8(arrays, tmp_path):
    tree = {"a": {"kernel": arrays["a/kernel"], "bias": arrays["a/bias"]}}
    model_directory.write(tmp_path, [], {"net": tree}, "int8")
    size = (tmp_path / "net.safetensors").stat().st_size
    assert size < 0.3 * arrays["a/kernel"].nbytes + arrays["a/bias"].nbytes + 2000
    got = model_directory.parameters(tmp_path, "net")(tree)
    np.testing.assert_array_equal(got["a"]["bias"], arrays["a/bias"])
    error = got["a"]["kernel"] - arrays["a/kernel"]
    assert 0 < error.std() < 0.03 * arrays["a/kernel"].std()


def test_arrays_are_restored_one_by_one_alike(arrays, tmp_path):
    stored = quantisation.quantise(arrays)
    safetensors.save(tmp_path / "net.safetensors", stored)
    file = safetensors.File(tmp_path / "net.safetensors")
    table = quantisation.table(file)
    shapes = safetensors.unflatten(arrays)
    got = safetensors.flatten(tensors.transfer(file, table, shapes))
    restored = quantisation.restore(stored)
    assert got.keys() == restored.keys()
    for name, array in restored.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype


def test_a_file_with_a_wrong_scale_is_refused(arrays, tmp_path):
    stored = quantisation.quantise(arrays)
    scale = stored["a/kernel" + quantisation.SCALE]
    for change, match in (
        ({"x@scale": scale}, "x@scale has no place"),
        ({"a/kernel@scale": scale[:31]}, "a/kernel@scale of shape .* cannot become"),
        ({"a/kernel": arrays["a/kernel"]}, "float32 of shape .* cannot have scales"),
    ):
        safetensors.save(tmp_path / "net.safetensors", {**stored, **change})
        file = safetensors.File(tmp_path / "net.safetensors")
        with pytest.raises(ValueError, match=match):
            tensors.check(file, quantisation.table(file), safetensors.unflatten(arrays))
