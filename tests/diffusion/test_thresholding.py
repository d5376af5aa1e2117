import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import thresholding

FRACTIONS = [0.0, 0.001, 0.25, 0.5, 0.9, 0.995, 0.9999, 1.0]
KINDS = {
    "normal": lambda rng, shape: np.abs(rng.standard_normal(shape)),
    "ties": lambda rng, shape: np.round(np.abs(rng.standard_normal(shape)), 1),
    "two values": lambda rng, shape: (rng.random(shape) < 0.5).astype(float),
    "constant": lambda rng, shape: np.full(shape, 0.3),
    "zero": lambda rng, shape: np.zeros(shape),
    "wide": lambda rng, shape: np.exp(8 * rng.standard_normal(shape)),
}
quantile = jax.jit(thresholding.quantile)


@pytest.mark.parametrize("shape", [(3, 5, 7, 3), (2, 16, 16, 3), (4, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_quantile_equals_numpy(kind, shape):
    values = KINDS[kind](np.random.default_rng(0), shape).astype(np.float32)
    for fraction in np.float32(FRACTIONS):
        expected = np.percentile(
            values.astype(np.float64).reshape(shape[0], -1), 100.0 * fraction, axis=1
        )
        found = quantile(jnp.asarray(values), jnp.asarray(fraction))
        # The position (n - 1) fraction is rounded in float32: 1e-4 of the gap between
        # two neighbours at most, which only the "wide" values can show.
        rtol = 1e-3 if kind == "wide" else 1e-6
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-6)


def test_a_number_known_at_compile_time_is_used_in_full_precision():
    values = np.random.default_rng(1).random((1, 300, 300, 3)).astype(np.float32)
    for fraction in (0.0, 0.5, 0.995, 1.0):
        expected = np.percentile(values.astype(np.float64), 100 * fraction)
        found = thresholding.quantile(jnp.asarray(values), fraction)
        np.testing.assert_allclose(found, expected, rtol=2e-7)


def test_order_statistics_are_exact_to_the_bit():
    values = np.random.default_rng(2).random((1, 101)).astype(np.float32)
    values[0, :7] = values[0, 7]  # Ties.
    search = jax.jit(thresholding._order_statistics)
    for rank in range(101):
        low, high = search(jnp.asarray(values), rank)
        assert low[0] == np.sort(values[0])[rank]
        assert high[0] == np.append(np.sort(values[0]), np.inf)[rank + 1]


def test_static_clips():
    x = jnp.array([[-3.0, -1.0, 0.2, 1.5]])
    np.testing.assert_allclose(thresholding.static(x), [[-1.0, -1.0, 0.2, 1.0]])


@pytest.mark.parametrize("threshold", [thresholding.static, thresholding.dynamic])
def test_pictures_in_range_are_left_alone(threshold):
    x = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1.0)
    x = x.at[0, 0, 0, 0].set(1.0).at[1, 0, 0, 0].set(-1.0)
    np.testing.assert_array_equal(threshold(x), x)


def test_dynamic_equals_its_definition():
    x = 2.0 * jax.random.normal(jax.random.key(0), (3, 8, 9, 3))
    s = np.percentile(np.abs(np.asarray(x, np.float64)), 90.0, axis=(1, 2, 3))
    s = np.maximum(s, 1.0)[:, None, None, None]
    found = thresholding.dynamic(x, 0.9)
    np.testing.assert_allclose(found, np.clip(x, -s, s) / s, rtol=1e-6)
    assert np.abs(found).max() <= 1.0


def test_examples_are_thresholded_apart():
    x = 3.0 * jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    x = x * jnp.array([1.0, 5.0]).reshape(2, 1, 1, 1)
    together = thresholding.dynamic(x)
    np.testing.assert_array_equal(together[:1], thresholding.dynamic(x[:1]))
    np.testing.assert_allclose(together[1:], thresholding.dynamic(x[1:]), rtol=1e-6)


def test_bfloat16_is_computed_in_float32():
    x = 2.0 * jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    x = x.astype(jnp.bfloat16)
    found = thresholding.dynamic(x)
    assert found.dtype == jnp.float32
    expected = thresholding.dynamic(x.astype(jnp.float32))
    np.testing.assert_array_equal(found, expected)


def test_nothing_is_sorted_or_flattened():
    x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    p = jax.ShapeDtypeStruct((), jnp.float32)
    text = jax.jit(thresholding.dynamic).lower(x, p).as_text()
    assert "sort" not in text and "top_k" not in text
    assert "2x768" not in text and "x1536" not in text and "<1536" not in text


def test_pictures_split_over_devices_give_the_same():
    x = 2.0 * jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
    mesh = jax.make_mesh((2, 4), ("b", "h"), (jax.sharding.AxisType.Auto,) * 2)
    spec = jax.sharding.PartitionSpec("b", "h")
    sharded = jax.device_put(x, jax.sharding.NamedSharding(mesh, spec))
    found = jax.jit(thresholding.dynamic)(sharded)
    np.testing.assert_allclose(found, thresholding.dynamic(x), rtol=1e-6)


def test_a_cap_bounds_what_x_is_divided_by():
    x = 3.0 * jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    found = thresholding.dynamic(x, 0.95, 1.5)
    np.testing.assert_allclose(found, np.clip(x, -1.5, 1.5) / 1.5, rtol=1e-6)
    np.testing.assert_array_equal(
        thresholding.dynamic(x, 0.95, 1.0), jnp.clip(x, -1, 1)
    )
    # Where the percentile is below the cap, it says nothing.
    small = 0.6 * x / jnp.abs(x).max()
    np.testing.assert_array_equal(thresholding.dynamic(small, 0.95, 1.5), small)
