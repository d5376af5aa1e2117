import numpy as np

from imagen_jax.cascade.contact_sheet import contact_sheet


def test_a_wide_picture_keeps_its_shape_in_the_middle_of_its_cell():
    red = np.zeros((16, 64, 3), np.uint8)
    red[..., 0] = 255
    sheet = np.asarray(contact_sheet([red, red[:, :16]], cell=64, margin=0))
    shown = (sheet == (255, 0, 0)).all(-1)
    assert sheet.shape == (64, 128, 3)
    np.testing.assert_array_equal(np.flatnonzero(shown[:, :64].all(1)), range(24, 40))
    assert shown[:, 64:].all()
