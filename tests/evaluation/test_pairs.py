"""The interval of a paired difference holds what it says."""

import numpy as np
import pytest

from imagen_jax.evaluation import pairs


def test_the_interval_holds_the_true_difference_95_times_in_100():
    random = np.random.default_rng(0)
    # Right by both, by ours alone, by theirs alone, by neither.
    shares, number, held = (0.85, 0.03, 0.06, 0.06), 150, 0
    for _ in range(2000):
        both, gained, lost, _ = random.multinomial(number, shares)
        ours = np.arange(number) < both + gained
        theirs = np.arange(number) < both
        theirs[both + gained : both + gained + lost] = True
        low, high = pairs.interval(ours, theirs)
        held += low <= shares[1] - shares[2] <= high
    assert 0.93 < held / 2000 < 0.97


def test_of_many_prompts_it_is_the_normal_interval_of_the_differences():
    random = np.random.default_rng(1)
    ours, theirs = random.random((2, 20000)) < 0.7
    differences = ours.astype(float) - theirs
    half = 1.96 * differences.std() / np.sqrt(len(ours))
    wanted = differences.mean() - half, differences.mean() + half
    np.testing.assert_allclose(pairs.interval(ours, theirs), wanted, atol=2e-4)


def test_pairing_narrows_it():
    theirs = np.arange(100) < 80
    alike = pairs.interval(np.arange(100) < 78, theirs)
    apart = pairs.interval(np.arange(100)[::-1] < 78, theirs)
    assert alike[1] - alike[0] < 0.5 * (apart[1] - apart[0])


def test_settings_that_never_differ_are_not_certain():
    low, high = pairs.interval(np.ones(50, bool), np.ones(50, bool))
    assert low == -high and 0.01 < high < 0.06


def test_answers_to_other_prompts_are_refused():
    with pytest.raises(ValueError, match="same prompts"):
        pairs.interval(np.ones(3, bool), np.ones(4, bool))
