"""What the chips say to each other in a compiled program."""

import dataclasses
import math
import re
from collections.abc import Mapping

from imagen_jax.planning import hlo

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "collective-permute",
    "all-to-all",
)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of one kind in one run of a program, loops multiplied out.

    Attributes:
      count: how many run.
      bytes: of the whole arrays that they gather, scatter, reduce or pass on, a chip:
        an all-gather's result, the operand of the others. An all-reduce does the work
        of a reduce-scatter and of an all-gather; see `moved`.
      largest: bytes of the largest one.
    """

    count: int
    bytes: int
    largest: int


def count(program: hlo.Program) -> dict[str, Traffic]:
    """The traffic of each kind that occurs; groups of one chip are left out."""
    found: dict[str, list[tuple[int, int]]] = {}
    for instruction, computation, times in program.executed():
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        group = group_size(instruction.attributes)
        size = program.operand_bytes(instruction, computation)
        if kind == "collective-permute":
            group = 2
        elif kind == "all-gather":
            size *= group
        elif kind == "all-reduce" and _scatters(program, instruction, computation):
            kind = "reduce-scatter"
        if group > 1:
            found.setdefault(kind, []).append((times, size))
    return {
        kind: Traffic(
            sum(times for times, _ in rows),
            sum(times * size for times, size in rows),
            max(size for _, size in rows),
        )
        for kind, rows in found.items()
    }


def moved(traffic: Mapping[str, Traffic]) -> int:
    """Bytes of all kinds, an all-reduce counted twice."""
    return sum(t.bytes * (2 if k == "all-reduce" else 1) for k, t in traffic.items())


def group_size(attributes: str) -> int:
    """Chips of an instruction's replica groups; 1 if it has none.

    They are written as lists, as an iota [groups, size], or as axes of a mesh.
    """
    axes = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", attributes)
    if axes:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", axes.group(1)))
        return math.prod(
            int(sizes[name]) for name in re.findall(r"'([^']+)'", axes.group(2))
        )
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", attributes)
    if iota:
        return int(iota.group(1))
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    return len(listed.group(1).split(",")) if listed else 1


def _scatters(program: hlo.Program, reduce: hlo.Instruction, computation: str) -> bool:
    """Whether an all-reduce is one of the TPU's fused reduce-scatters.

    The TPU's compiler writes a reduce-scatter as a fusion of an all-reduce and a slice
    of it, "all-reduce-scatter"; the hardware does not send the rest around.
    """
    if "all-reduce-scatter" in computation:
        return True
    readers = [
        i
        for i in program.computations[computation].values()
        if reduce.name in i.operands
    ]
    return (
        computation != program.entry
        and bool(readers)
        and all(reader.opcode == "dynamic-slice" for reader in readers)
        and any(reader.root for reader in readers)
    )
