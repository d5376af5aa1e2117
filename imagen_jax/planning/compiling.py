"""Compile a program for chips that are not here, or learn why it does not fit."""

import contextlib
import dataclasses
import re
import resource
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core as extend

from imagen_jax import partitioning
from imagen_jax.planning import hlo, programs

LEVELS = ("default", "O0", "O1", "O2", "O3")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One of the largest arrays of a program that does not fit.

    Attributes:
      bytes: its size on the chip, padding included; if `whole`, of all of it, before
        the chips share it.
      shape: as XLA writes it.
      operator: the part of the model that it comes from.
      whole: whether the compiler did not list its buffers, and the traced program's
        arrays stand in for them.
    """

    bytes: int
    shape: str
    operator: str
    whole: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler found.

    Attributes:
      fits: whether it compiled, as the compiler enforces the chip's memory.
      peak_bytes: most memory in use at once on a chip; of a program that does not fit,
        what it would need.
      limit_bytes: memory that the compiler allows; 0 where it did not say.
      seconds: lowering and compiling.
      host_bytes: the most memory that this process has used so far.
      program: the text of a program that fits.
      buffers: the largest ones of a program that does not.
    """

    fits: bool
    peak_bytes: int
    limit_bytes: int
    seconds: float
    host_bytes: int
    program: hlo.Program | None = None
    buffers: tuple[Buffer, ...] = ()


def compile(program: programs.Program, level: str = "default") -> Compiled:
    """Compile ahead of time at an optimization level.

    Raises:
      ValueError: for another level.
      jax.errors.JaxRuntimeError: for any failure but one of memory.
    """
    if level not in LEVELS:
        raise ValueError(f"--optimization: must be one of {LEVELS}, got {level!r}.")
    start = time.perf_counter()
    fits, peak, limit, text, buffers = True, 0, 0, None, ()
    with _optimization(level):
        traced = program.trace()
        try:
            with partitioning.use(program.mesh):
                compiled = traced.lower().compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            fits = False
            peak, limit, buffers = read_exhausted(str(error))
            buffers = buffers or largest(traced.jaxpr.jaxpr)
        else:
            peak = compiled.memory_analysis().peak_memory_in_bytes
            text = hlo.parse(compiled.as_text())
    return Compiled(
        fits=fits,
        peak_bytes=peak,
        limit_bytes=limit,
        seconds=time.perf_counter() - start,
        host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        program=text,
        buffers=buffers,
    )


@contextlib.contextmanager
def _optimization(level: str) -> Iterator[None]:
    config: Any = jax.config  # Its flags are attributes that it makes as it runs.
    before = config.jax_optimization_level
    if level != "default":
        jax.config.update("jax_optimization_level", level)
    try:
        yield
    finally:
        jax.config.update("jax_optimization_level", before)


def read_exhausted(message: str) -> tuple[int, int, tuple[Buffer, ...]]:
    """(bytes needed, bytes there are, largest buffers) of the compiler's complaint."""
    size = r"([\d.]+)([KMGT]?)"
    used = re.search(rf"Used {size}\S* of {size}", message) or re.search(
        rf"\({size}\) exceeds available HBM \({size}\)", message
    )
    need, limit = (
        (_bytes(*used.group(1, 2)), _bytes(*used.group(3, 4))) if used else (0, 0)
    )
    buffers = []
    for part in re.split(r"\n\s*\d+\. Size: ", message)[1:]:
        found = re.match(size, part)
        shape = re.search(r"Shape: (\S+)", part)
        operator = re.search(r'op_name="([^"]*)"', part)
        if found and shape:
            buffers.append(
                Buffer(
                    _bytes(*found.group(1, 2)),
                    shape.group(1).split("{")[0],
                    operator.group(1) if operator else "",
                )
            )
    return need, limit, tuple(buffers)


def largest(jaxpr, number: int = 3) -> tuple[Buffer, ...]:
    """The largest arrays that a traced program makes, one of each shape."""
    found: dict[str, Buffer] = {}
    waiting = [jaxpr]
    while waiting:
        for eqn in waiting.pop().eqns:
            waiting += extend.jaxprs_in_params(eqn.params)
            for var in eqn.outvars:
                shape = var.aval.str_short(short_dtypes=True)
                if hasattr(var.aval, "dtype") and shape not in found:
                    size = var.aval.size * getattr(var.aval.dtype, "itemsize", 1)
                    where = str(eqn.source_info.name_stack)
                    found[shape] = Buffer(size, shape, where, whole=True)
    rows = sorted(found.values(), key=lambda buffer: -buffer.bytes)
    return tuple(rows[:number])


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * UNITS[unit])
