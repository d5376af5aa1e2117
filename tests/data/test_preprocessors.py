import numpy as np
import pytest

from imagen_jax.data import preprocessors


def test_crop_windows_lie_inside_and_on_the_grid():
    windows = [preprocessors.crop_window(0, i, 64, 16, 4) for i in range(2000)]
    assert windows == [preprocessors.crop_window(0, i, 64, 16, 4) for i in range(2000)]
    tops = {top for top, _, _ in windows}
    assert tops == set(range(0, 49, 4))
    assert all(size == 16 and left % 4 == 0 for _, left, size in windows)
    # Rows and columns are drawn independently.
    assert len({window[:2] for window in windows}) == 13 * 13


def test_crop_window_refuses_what_is_off_the_grid():
    with pytest.raises(ValueError, match="got size 18"):
        preprocessors.crop_window(0, 0, 64, 18, 4)
    with pytest.raises(ValueError, match="at most 64"):
        preprocessors.crop_window(0, 0, 64, 128)


def test_crop_cuts_the_window():
    image = np.arange(8 * 8 * 3).reshape(8, 8, 3)
    np.testing.assert_array_equal(preprocessors.crop(image, (2, 3, 4)), image[2:6, 3:7])
