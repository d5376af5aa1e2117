"""Random weights from their names: the same in every framework, stored nowhere."""

import math
import zlib

import numpy as np


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Unit normal numbers that depend on `name` alone, float32."""
    seed = zlib.crc32(name.encode())
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter of torch: norms near one, kernels [out, in, ...] of unit gain."""
    numbers = normal(name, tuple(shape))
    if len(shape) == 1:
        return 0.1 * numbers + (1.0 if name.endswith(".weight") else 0.0)
    return numbers / np.float32(math.sqrt(math.prod(shape[1:])))


def projections(name: str, array: np.ndarray, count: int = 6) -> np.ndarray:
    """The norm of an array and its products with unit normal arrays, float64."""
    flat = np.asarray(array, np.float64).reshape(-1)
    against = [normal(f"{name}/{i}", flat.shape) @ flat for i in range(count)]
    return np.array([np.linalg.norm(flat), *against])
