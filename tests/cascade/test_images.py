import jax.numpy as jnp
import numpy as np

from imagen_jax.cascade import images


def test_uint8_survives_the_way_through_float():
    every = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(images.to_uint8(images.to_float(every)), every)


def test_float_range_is_minus_one_to_one():
    ends = images.to_float(jnp.array([[[[0, 255]]]], jnp.uint8))
    np.testing.assert_allclose(ends.ravel(), [-1.0, 1.0])


def test_values_outside_the_range_are_clipped():
    x = jnp.array([[[[-3.0, 3.0]]]])
    np.testing.assert_array_equal(images.to_uint8(x).ravel(), [0, 255])


def test_resizing_keeps_a_constant_picture_constant():
    x = jnp.full((1, 32, 32, 3), 0.25)
    for size in ((8, 8), (64, 64), (16, 48)):
        np.testing.assert_allclose(images.resize(x, size), 0.25, atol=1e-6)


def test_shrinking_is_antialiased():
    # A checkerboard of single pixels has the mean 0 everywhere; picking every fourth
    # pixel instead would give 1.
    board = jnp.where(jnp.indices((32, 32)).sum(0) % 2 == 0, 1.0, -1.0)
    small = images.resize(board[None, :, :, None], (8, 8))
    assert float(jnp.abs(small).max()) < 0.1


def test_resizing_to_the_same_size_is_exact():
    x = jnp.linspace(-1, 1, 48).reshape(1, 4, 4, 3)
    np.testing.assert_array_equal(images.resize(x, (4, 4)), x)


def test_enlarging_keeps_corners_and_straight_lines():
    # Corners' centres stay corners: a ramp in each axis is the ramp between its ends.
    rows, columns = jnp.linspace(0, 3, 4), jnp.linspace(-1, 1, 6)
    x = rows[None, :, None, None] + columns[None, None, :, None]
    large = images.enlarge_aligned(x, (7, 21))
    expected = np.linspace(0, 3, 7)[:, None] + np.linspace(-1, 1, 21)[None]
    np.testing.assert_allclose(large[0, :, :, 0], expected, atol=1e-6)
    peak = jnp.zeros((1, 3, 1, 1)).at[0, 1].set(1.0)
    found = images.enlarge_aligned(peak, (5, 1))
    np.testing.assert_allclose(found[0, :, 0, 0], [0, 0.5, 1, 0.5, 0], atol=1e-6)
