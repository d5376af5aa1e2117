"""Floating-point operations of a traced program, counted from its jaxpr.

A count of the products that the program asks for, not a measurement of anything: matrix
products and convolutions at two operations per multiply-add, everything else (norms,
activations, resizing, the optimizer) taken as free. Recomputation for memory
(`jax.checkpoint`) is not work the model needs, and is counted once.
"""

import dataclasses
import math
from collections.abc import Callable

import jax


@dataclasses.dataclass(frozen=True)
class Count:
    """Operations of one call.

    Attributes:
      forward: of the function itself.
      training: of the function and its gradient: each product once more for every
        operand that a gradient flows into. That is three times `forward` where both
        operands depend on the parameters; a frozen encoder counts once.
    """

    forward: float = 0.0
    training: float = 0.0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.forward + other.forward, self.training + other.training)

    def __mul__(self, times: float) -> "Count":
        return Count(self.forward * times, self.training * times)


def count(function: Callable, *args, trained: int = 0) -> Count:
    """Count `function(*args)`; arrays may be abstract, nothing is computed.

    Loops of known length count that often; of `lax.while_loop` one round is counted, of
    `lax.cond` the costliest branch.

    Args:
      function: what to trace.
      *args: its arguments, arrays or jax.ShapeDtypeStruct in any trees.
      trained: which argument the gradient is taken of.
    """
    jaxpr = jax.make_jaxpr(function)(*args)
    depends = [
        index == trained for index, arg in enumerate(args) for _ in jax.tree.leaves(arg)
    ]
    return _walk(jaxpr.jaxpr, depends)[0]


def _walk(jaxpr, depends: list[bool]) -> tuple[Count, list[bool]]:
    """(operations, which outputs depend on the trained inputs)."""
    known = dict(zip(jaxpr.invars, depends, strict=True))

    def of(atom) -> bool:
        return not hasattr(atom, "val") and known.get(atom, False)  # literals do not

    total = Count()
    for eqn in jaxpr.eqns:
        operands = [of(atom) for atom in eqn.invars]
        cost, out = _equation(eqn, operands)
        total = total + cost
        known.update(zip(eqn.outvars, out, strict=True))
    return total, [of(atom) for atom in jaxpr.outvars]


def _equation(eqn, operands: list[bool]) -> tuple[Count, list[bool]]:
    name, params = eqn.primitive.name, eqn.params
    outputs = len(eqn.outvars)
    if name in PRODUCTS:
        forward = float(PRODUCTS[name](eqn))
        cost = Count(forward, forward * (1 + sum(operands[:2])))
        return cost, [any(operands)] * outputs
    if name == "scan":
        return _scan(params, operands)
    if name == "while":
        consts = params["cond_nconsts"]
        body = _open(params["body_jaxpr"])
        return _round(body, operands[consts:], params["body_nconsts"])
    if name == "cond":
        walked = [_walk(_open(b), operands[1:]) for b in params["branches"]]
        cost = max((c for c, _ in walked), key=lambda c: c.training)
        return cost, [any(flags) for flags in zip(*(o for _, o in walked), strict=True)]
    if name == "stop_gradient":
        return Count(), [False] * outputs
    inner = next((params[k] for k in CALLS if k in params), None)
    if inner is not None and len(_open(inner).invars) == len(operands):
        return _walk(_open(inner), operands)
    return Count(), [any(operands)] * outputs


def _scan(params, operands: list[bool]) -> tuple[Count, list[bool]]:
    body = _open(params["jaxpr"])
    if "num_carry" in params:
        consts, carry = params["num_consts"], params["num_carry"]
    else:  # jax 0.12 keeps the operands' structure: (constants, carry, slices).
        consts, carry = (len(part) for part in params["ft_in"].unpack()[:2])
    cost, out = _round(body, operands, consts, carry)
    return cost * params["length"], out


def _round(body, operands, consts: int, carry: int | None = None):
    """One round of a loop whose carry's dependence has settled."""
    carry = len(operands) - consts if carry is None else carry
    flags = list(operands)
    while True:
        cost, out = _walk(body, flags)
        settled = [
            old or new
            for old, new in zip(
                flags[consts : consts + carry], out[:carry], strict=True
            )
        ]
        if settled == flags[consts : consts + carry]:
            return cost, out
        flags[consts : consts + carry] = settled


def _open(jaxpr):
    return jaxpr.jaxpr if hasattr(jaxpr, "jaxpr") else jaxpr


def _dot(eqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    return 2 * math.prod(eqn.outvars[0].aval.shape) * _product(left, contracted)


def _convolution(eqn) -> int:
    kernel = eqn.invars[1].aval.shape
    dims = eqn.params["dimension_numbers"].rhs_spec
    # rhs_spec is (out, in, space...); "in" is already divided by the feature groups.
    taps = _product(kernel, dims[1:])
    holes = math.prod(eqn.params["lhs_dilation"])
    # In a transposed convolution most taps meet zeros put between the pixels.
    return 2 * math.prod(eqn.outvars[0].aval.shape) * taps // holes


def _product(shape, axes) -> int:
    return math.prod(shape[axis] for axis in axes)


PRODUCTS = {"dot_general": _dot, "conv_general_dilated": _convolution}
# Where the primitives that call another program (jit, remat, custom_jvp, ...) keep it.
CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
