"""Random draws and permutations as pure functions of integers.

Everything in `data/` hangs on (seed, index): no generator is carried along, so that
any example can be made by any host, in any order, after any restart. Integer
arithmetic only: the streams do not depend on the version of numpy.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
ROUNDS = 4


def mix(value: int) -> int:
    """Scramble 64 bits (the finalizer of splitmix64, Steele et al. 2014)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def digest(*values: int) -> int:
    """Hash integers to 64 bits; their order matters."""
    state = GOLDEN
    for value in values:
        state = mix(((state + GOLDEN) & MASK) ^ mix(value & MASK))
    return state


def fraction(text: str) -> float:
    """Hash a string to [0, 1): the same on every machine and for ever."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / (
        1 << 56
    )


class Draw:
    """A short stream of random numbers that is a function of (seed, index, salt).

    `Draw(seed, index).below(6)` throws a die. Construction costs under 2 us, which
    `numpy.random.default_rng` does not reach.
    """

    __slots__ = ("state",)

    def __init__(self, seed: int, index: int, salt: int = 0):
        self.state = digest(seed, index, salt)

    def bits(self) -> int:
        """Draw 64 random bits."""
        self.state = (self.state + GOLDEN) & MASK
        return mix(self.state)

    def below(self, n: int) -> int:
        """Draw an integer in [0, n)."""
        return (self.bits() * n) >> 64

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw a number in [low, high)."""
        return low + (high - low) * ((self.bits() >> 11) / (1 << 53))

    def choose(self, options: Sequence[T]) -> T:
        """Draw one of the options, each as likely as the others."""
        return options[self.below(len(options))]

    def weighted(self, shares: Mapping[str, float]) -> str:
        """Draw one of the names, each as likely as its share of the sum."""
        point = self.uniform(0.0, sum(shares.values()))
        for name, share in shares.items():
            point -= share
            if point < 0.0:
                return name
        return name


def permute(position: int, size: int, key: int) -> int:
    """Return where `position` goes in a pseudo-random permutation of [0, size).

    A balanced Feistel network over the next even power of two, walked until it falls
    inside (Black and Rogaway 2002): constant memory, so a shuffle of billions of
    examples is a function and not a buffer.
    """
    if not 0 <= position < size:
        raise ValueError(
            f"permute: position must be in [0, {size}), got {position}. "
            "Split the index into epoch and position first."
        )
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = position >> half, position & low
        for round_number in range(ROUNDS):
            left, right = right, left ^ (digest(key, round_number, right) & low)
        position = (left << half) | right
        if position < size:
            return position
