"""Compiled programs as text: their instructions and how often each one runs."""

import dataclasses
import math
import re
from collections.abc import Iterator

BITS = {
    "pred": 8,
    **{f"{sign}{n}": n for sign in "su" for n in (2, 4, 8, 16, 32, 64)},
    **{"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128},
}
# What runs the computations that it names; others (a reduction's sum) only refer to
# them. An async-done names its start's.
RUNS = ("fusion", "call", "while", "conditional", "async-start")
CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|branch_computations|true_computation"
    r"|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: of its result.
      shape: of its result, with layouts.
      opcode: what it does.
      operands: names of what it reads.
      attributes: all that follows the operands.
      root: whether it is its computation's result.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it runs."""
        if self.opcode not in RUNS:
            return ()
        groups = CALLED.findall(self.attributes)
        return tuple(n.strip(" %") for g in groups for n in g.strip("{}").split(","))

    @property
    def cycles(self) -> int:
        """The compiler's estimate of its cycles on the TPU; 0 where it gives none."""
        found = re.search(r'"estimated_cycles":"(-?\d+)"', self.attributes)
        return max(0, int(found.group(1))) if found else 0


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name.

    Attributes:
      computations: each one's instructions by name.
      entry: where it begins.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def executed(self, fused: bool = True) -> Iterator[tuple[Instruction, str, int]]:
        """(instruction, its computation, how often it runs), loops multiplied out.

        Args:
          fused: whether to enter fusions, or to take each as one instruction.
        """
        waiting = [(self.entry, 1)]
        while waiting:
            name, times = waiting.pop()
            for instruction in self.computations[name].values():
                yield instruction, name, times
                if instruction.opcode == "fusion" and not fused:
                    continue
                rounds = self.trips(instruction) if instruction.opcode == "while" else 1
                waiting += [
                    (called, times * rounds)
                    for called in instruction.called
                    if called in self.computations
                ]

    def trips(self, loop: Instruction) -> int:
        """How many rounds a `while` makes; 1 where the text does not tell."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if found:
            return int(found.group(1))
        condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        body = self.computations.get(condition.group(1), {}) if condition else {}
        constants = [
            int(i.operands[0])
            for i in body.values()
            if i.opcode == "constant" and i.operands and i.operands[0].isdigit()
        ]
        return constants[0] if len(constants) == 1 else 1

    def operand_bytes(self, instruction: Instruction, computation: str) -> int:
        """Bytes of all that an instruction reads."""
        here = self.computations[computation]
        return sum(shape_bytes(here[n].shape) for n in instruction.operands)


def shape_bytes(shape: str) -> int:
    """Bytes of an array or of all arrays of a tuple, padding not counted."""
    bits = 0
    for dtype, dims in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape):
        if dtype in BITS:
            bits += BITS[dtype] * math.prod(int(n) for n in dims.split(",") if n)
    return bits // 8


def parse(text: str) -> Program:
    """The program that `compiled.as_text()` prints."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry = name = ""
    for line in text.splitlines():
        header = re.match(r"(ENTRY\s+)?%?([\w.\-]+)\s+\(.*\{\s*$", line)
        if header and not line.startswith(" "):
            name = header.group(2)
            computations[name] = {}
            entry = name if header.group(1) else entry
        elif name and (instruction := _instruction(line)):
            computations[name][instruction.name] = instruction
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    head = re.match(r"\s+(ROOT\s+)?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    end = _close(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _close(rest, opening)
    inside = rest[opening + 1 : closing]
    # Operands are printed with or without their shapes, always with a %.
    operands = re.findall(r"%([\w.\-]+)", inside) or [inside.strip()]
    return Instruction(
        head.group(2),
        shape,
        rest[:opening],
        tuple(o for o in operands if o),
        rest[closing + 1 :],
        bool(head.group(1)),
    )


def _close(text: str, opening: int) -> int:
    """The place of the parenthesis that closes the one at `opening`."""
    depth = 0
    for i in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"HLO: unbalanced parentheses in {text[:80]!r}.")
