"""The compiler's own estimate of where a program's time goes. No measurement.

Sorts, Pallas kernels and collectives count nothing in it.
"""

import dataclasses

from imagen_jax.planning import hlo

MOVES = ("copy", "pad", "transpose")
# What may stand in a fusion that only moves: nothing that computes.
STILL = (*MOVES, "bitcast", "parameter", "reshape", "constant", "tuple", "slice")


@dataclasses.dataclass(frozen=True)
class Cycles:
    """Estimated cycles of one run on a chip, loops multiplied out.

    Attributes:
      total: of all instructions that the compiler gives an estimate for.
      moves: of copies, pads and transposes, alone or fused with nothing but each other.
    """

    total: int
    moves: int

    @property
    def share(self) -> float:
        """Moves of the total."""
        return self.moves / self.total if self.total else 0.0


def cycles(program: hlo.Program) -> Cycles:
    """Add up the estimates that the compiler wrote beside its instructions."""
    total = moves = 0
    for instruction, _, times in program.executed(fused=False):
        total += times * instruction.cycles
        if _moves(program, instruction):
            moves += times * instruction.cycles
    return Cycles(total, moves)


def _moves(program: hlo.Program, instruction: hlo.Instruction) -> bool:
    if instruction.opcode.removesuffix("-start") in MOVES:
        return True
    if instruction.opcode != "fusion":
        return False
    inside = [
        i.opcode
        for name in instruction.called
        for i in program.computations.get(name, {}).values()
    ]
    return any(o in MOVES for o in inside) and all(o in STILL for o in inside)


def sorts(program: hlo.Program) -> int:
    """How many sorts the program's text holds."""
    return sum(
        i.opcode == "sort" for c in program.computations.values() for i in c.values()
    )
