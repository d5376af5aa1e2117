import collections
import itertools

import pytest

from imagen_jax.data import order


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64, 1000, 4097])
def test_permute_is_a_permutation(size):
    assert sorted(order.permute(i, size, 5) for i in range(size)) == list(range(size))


def test_permutations_differ_by_key_and_look_shuffled():
    rows = [[order.permute(i, 1000, key) for i in range(1000)] for key in (1, 2)]
    assert rows[0] != rows[1]
    # Of a random permutation about one place stays, and half of the steps go up.
    for row in rows:
        assert sum(i == x for i, x in enumerate(row)) < 8
        rises = sum(a < b for a, b in itertools.pairwise(row))
        assert 440 < rises < 560


def test_permute_refuses_positions_outside():
    with pytest.raises(ValueError, match=r"must be in \[0, 4\), got 4"):
        order.permute(4, 4, 0)


def test_permute_works_at_the_size_of_web_datasets():
    size = 2_000_000_000
    assert len({order.permute(i, size, 3) for i in range(2000)}) == 2000


def test_draws_are_a_function_of_seed_index_and_salt():
    def first(*arguments):
        return order.Draw(*arguments).bits()

    assert first(1, 2, 3) == first(1, 2, 3)
    assert len({first(1, 2, 3), first(2, 1, 3), first(1, 3, 2), first(1, 2)}) == 4


def test_draws_are_uniform():
    draw = order.Draw(0, 0)
    counts = collections.Counter(draw.below(6) for _ in range(6000))
    assert set(counts) == set(range(6))
    # Binomial with standard deviation 29.
    assert all(abs(n - 1000) < 150 for n in counts.values())
    mean = sum(draw.uniform(2.0, 4.0) for _ in range(6000)) / 6000
    assert abs(mean - 3.0) < 0.05


def test_consecutive_indices_are_independent():
    values = [order.Draw(7, index).uniform() for index in range(4000)]
    mean = sum(values) / 4000
    covariance = sum((a - mean) * (b - mean) for a, b in itertools.pairwise(values))
    # In units of the variance 1/12: standard deviation 0.016.
    assert abs(covariance / 4000 * 12) < 0.08


def test_weighted_choice_follows_its_shares():
    draw = order.Draw(0, 1)
    counts = collections.Counter(
        draw.weighted({"a": 1, "b": 2, "c": 1}) for _ in range(8000)
    )
    assert abs(counts["b"] - 4000) < 200 and abs(counts["a"] - 2000) < 200


def test_hashes_never_change():
    """Written once: held-out sets and saved data positions depend on them."""
    assert order.digest(0, 1, 2) == 0x495863485DDFA655
    assert order.Draw(0, 0).bits() == 0xC739F5EC15A29D83
    assert order.fraction("a red apple") == 0.3800638274219811
    assert [order.permute(i, 10, 0) for i in range(10)] == [
        6,
        0,
        1,
        2,
        3,
        8,
        4,
        9,
        7,
        5,
    ]
