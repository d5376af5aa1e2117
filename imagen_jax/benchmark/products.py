"""The convolutions and matrix products of a program, one by one.

What a program would take if it did nothing else is a measured bound on how far its
other work (norms, activations, copies, the optimizer) and its schedule matter.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from imagen_jax.training import flops

Bind = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Product:
    """One kind of product: a primitive with the shapes and settings it is called with.

    Attributes:
      primitive: "conv_general_dilated" or "dot_general".
      operands: (shape, dtype) of each.
      settings: the primitive's, in words; what tells two products apart.
      operations: of one call, two for each multiply-add.
      bind: calls it.
    """

    primitive: str
    operands: tuple[tuple[tuple[int, ...], str], ...]
    settings: str
    operations: float
    bind: Bind = dataclasses.field(compare=False, repr=False)


def of(function: Callable, *args) -> Counter[Product]:
    """How often each product is called in `function(*args)`; nothing is computed.

    A loop of known length counts that often, of `lax.while_loop` one round, of
    `lax.cond` all branches.

    Args:
      function: what to trace.
      *args: arrays or abstract arrays, in any trees.
    """
    found: Counter[Product] = Counter()
    for product, times in _walk(jax.make_jaxpr(function)(*args).jaxpr, 1):
        found[product] += times
    return found


def _walk(jaxpr, times: int) -> Iterator[tuple[Product, int]]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in flops.PRODUCTS:
            yield _product(eqn), times
            continue
        rounds = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for inner in _inner(eqn.params):
            yield from _walk(inner, times * rounds)


def _inner(params) -> Iterator[Any]:
    """The programs that an equation calls."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                yield one


def _product(eqn) -> Product:
    primitive, params = eqn.primitive, dict(eqn.params)
    # Where its result shall lie is no matter of the product's own.
    params = {k: None if "sharding" in k else v for k, v in params.items()}
    return Product(
        primitive=primitive.name,
        operands=tuple(
            (tuple(v.aval.shape), str(v.aval.dtype)) for v in eqn.invars[:2]
        ),
        settings=repr(sorted(params.items(), key=lambda item: item[0])),
        operations=float(flops.PRODUCTS[primitive.name](eqn)),
        bind=lambda *operands: primitive.bind(*operands, **params),
    )


def largest(found: Counter[Product], share: float) -> list[Product]:
    """The products with most operations that make up `share` of all, largest first."""
    total = sum(product.operations * times for product, times in found.items())
    ranked = sorted(found, key=lambda p: p.operations * found[p], reverse=True)
    kept, done = [], 0.0
    for product in ranked:
        if done >= share * total:
            break
        kept.append(product)
        done += product.operations * found[product]
    return kept


def operands(product: Product, seed: int = 0) -> list[np.ndarray]:
    """Normal numbers for a product, of unit variance."""
    draw = np.random.default_rng(seed)
    return [
        draw.standard_normal(math.prod(shape), np.float32).reshape(shape).astype(dtype)
        for shape, dtype in product.operands
    ]
