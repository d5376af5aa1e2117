import numpy as np
import pytest

from imagen_jax.cascade.text_to_image import Samples
from imagen_jax.data import tasks
from imagen_jax.evaluation import suites


class Painter:
    """Stands for a model: draws the real picture of a caption, wrong for some."""

    def __init__(self, wrong: int):
        self.wrong = wrong
        stage = type("Stage", (), {"resolution": 16})()
        self.cascade = type("Cascade", (), {"stages": (stage,)})()

    def sample(self, captions, *, seed, **settings):
        source = tasks.by_name("shapes", "heldout")
        real = [source.example(seed, i, 16)["image"] for i in range(len(captions))]
        for i in range(self.wrong):
            real[i] = np.full_like(real[i], 24)
        return Samples(tuple(captions), (np.stack(real),), ("base",))


def test_real_pictures_are_right():
    report = suites.shapes(Painter(wrong=0), num=40)
    assert report.right >= 39 and report.ceiling >= 0.97


def test_empty_pictures_are_failures_that_are_shown():
    report = suites.shapes(Painter(wrong=10), num=40)
    assert report.right <= 30 and len(report.failures) == 40 - report.right
    assert report.sheet().size[0] > 800
    assert "held-out" in str(report)


def test_an_interval_never_leaves_what_a_share_can_be():
    for drawn in range(1, 200):
        low, _ = suites.interval(0, drawn)
        _, high = suites.interval(drawn, drawn)
        assert (low, high) == (pytest.approx(0.0, abs=1e-12), pytest.approx(1.0))
        assert low >= 0.0 and high <= 1.0 and f"{low:.1%}" == "0.0%"


def test_the_interval_holds_the_share_and_narrows():
    few, many = suites.interval(8, 10), suites.interval(800, 1000)
    assert few[0] < 0.8 < few[1] and many[0] < 0.8 < many[1]
    assert many[1] - many[0] < few[1] - few[0]
    # Wilson's interval for 8 of 10, computed by hand.
    np.testing.assert_allclose(few, (0.4901, 0.9433), atol=1e-3)


def test_no_captions_are_refused():
    with pytest.raises(ValueError, match="num"):
        suites.shapes(Painter(wrong=0), num=0)
