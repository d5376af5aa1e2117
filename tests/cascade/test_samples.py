import numpy as np

from imagen_jax.cascade import samples


def test_they_say_in_a_line_what_they_hold():
    stages = [np.zeros((n, side, side, 3), np.uint8) for n, side in ((2, 8), (1, 16))]
    drawn = samples.Samples(("a", "b"), tuple(stages), ("base", "up"))
    assert repr(drawn) == "Samples of 2 pictures: base 2 x 8 x 8, up 1 x 16 x 16"
    assert repr(samples.Samples(("a",))) == "Samples of 1 pictures: none drawn"
