"""One plan: what a program needs on a slice, as numbers, as JSON and as text."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from imagen_jax.planning import collectives, compiling, programs, schedule
from imagen_jax.planning import topologies as topologies_lib

GB = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known before any chip is there; bytes are a chip's.

    Attributes:
      config: its name.
      program: "train", "sample" or "encode".
      topology: as libtpu writes it.
      chips, hosts: of all slices.
      mesh: sizes of its axes.
      batch: examples of one run, all chips together.
      parameters: numbers of the network.
      fits: whether it compiled for the chip's memory.
      peak_bytes: most memory in use at once; what it would need if it does not fit.
      memory_bytes: that the compiler lets a program use.
      parts: bytes of the arguments by what they are, and of "activations": the rest of
        the peak, gradients and buffers of all kinds included.
      flops: model operations of one run, counted from the model, all chips together.
      seconds_at_peak: the time they take at the chips' peak; a bound, no estimate.
      utilisation: share of the peak that is assumed for `days`.
      days: to the config's number of steps at that utilisation; 0 unless training.
      traffic: collectives by kind.
      least_bytes: the least that a step of fully sharded training sends; 0 elsewhere.
      cycles, moves_share: the compiler's estimate of a run's cycles, and the share of
        copies, pads and transposes.
      sorts: sorts in the program.
      checkpoint_bytes: of one checkpoint, all hosts together; 0 unless training.
      buffers: the largest ones of a program that does not fit.
      compile_seconds, host_bytes: what it cost here.
      optimization: level of the compiler.
      versions: of jax and libtpu.
    """

    config: str
    program: str
    topology: str
    chips: int
    hosts: int
    mesh: dict[str, int]
    batch: int
    parameters: int
    fits: bool
    peak_bytes: int
    memory_bytes: int
    parts: dict[str, int]
    flops: float
    seconds_at_peak: float
    utilisation: float
    days: float
    traffic: dict[str, collectives.Traffic]
    least_bytes: int
    cycles: int
    moves_share: float
    sorts: int
    checkpoint_bytes: int
    buffers: tuple[compiling.Buffer, ...]
    compile_seconds: float
    host_bytes: int
    optimization: str
    versions: dict[str, str]

    def json(self) -> dict[str, Any]:
        """Plain values, with the traffic's sum."""
        values = dataclasses.asdict(self)
        values["collective_bytes"] = collectives.moved(self.traffic)
        return values


def make(
    config: str,
    program: programs.Program,
    topology: topologies_lib.Topology,
    *,
    utilisation: float,
    level: str,
) -> Plan:
    """Compile a program and put together what is to be known of it.

    Raises:
      ValueError: unless 0 < utilisation <= 1.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"--utilisation: must be in (0, 1], got {utilisation}.")
    flops = program.count_flops()
    found = compiling.compile(program, level)
    parts = dict(program.parts)
    if found.peak_bytes:
        parts["activations"] = found.peak_bytes - sum(parts.values())
    seconds = flops / (topology.chips * topology.chip.tflops * 1e12)
    text = found.program
    cycles = schedule.cycles(text) if text else schedule.Cycles(0, 0)
    return Plan(
        config=config,
        program=program.kind,
        topology=str(topology),
        chips=topology.chips,
        hosts=topology.hosts,
        mesh={name: size for name, size in program.mesh.shape.items() if size > 1},
        batch=program.batch,
        parameters=program.parameters,
        fits=found.fits,
        peak_bytes=found.peak_bytes,
        memory_bytes=found.limit_bytes or int(topology.chip.memory_gib * 2**30),
        parts=parts,
        flops=flops,
        seconds_at_peak=seconds,
        utilisation=utilisation,
        days=program.steps * seconds / utilisation / 86400,
        traffic=collectives.count(text) if text else {},
        least_bytes=program.least_bytes,
        cycles=cycles.total,
        moves_share=cycles.share,
        sorts=schedule.sorts(text) if text else 0,
        checkpoint_bytes=program.checkpoint_bytes,
        buffers=found.buffers,
        compile_seconds=found.seconds,
        host_bytes=found.host_bytes,
        optimization=level,
        versions={"jax": jax.__version__, "libtpu": libtpu_version()},
    )


def libtpu_version() -> str:
    """The version of the installed compiler."""
    import importlib.metadata

    return importlib.metadata.version("libtpu")


def text(plan: Plan) -> str:
    """The plan as lines; what is an estimate says so."""
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.items())
    per_host = plan.chips // plan.hosts
    lines = [
        f"{plan.config}: {plan.program}, batch {plan.batch}, "
        f"{plan.parameters:,} parameters",
        f"on {plan.topology}: {plan.chips} chips, {plan.hosts} hosts of {per_host}; "
        f"mesh {mesh or 'of one chip'}",
        verdict(plan),
    ]
    if plan.fits:
        lines += [f"  {name:<13}{size / GB:8.3f} GB" for name, size in _parts(plan)]
        lines += _traffic(plan.traffic)
        if plan.least_bytes:
            times = collectives.moved(plan.traffic) / plan.least_bytes
            lines.append(
                f"  {times:.2f} times the least of a fully sharded step, "
                f"{plan.least_bytes / GB:.4f} GB"
            )
        lines.append(
            f"compiler's estimate: {plan.cycles:,} cycles, collectives not counted; "
            f"copies, pads and transposes {plan.moves_share:.1%} of them"
        )
    lines.append(
        f"model: {plan.flops / 1e12:,.2f} TFLOP a run (counted); at the chips' peak "
        f"{plan.seconds_at_peak * 1e3:,.2f} ms (a bound, not an estimate)"
    )
    if plan.checkpoint_bytes:
        lines += [
            f"estimate: {plan.days:,.1f} days to the configured steps, assuming "
            f"{plan.utilisation:.0%} utilisation",
            f"checkpoint: {plan.checkpoint_bytes / GB:,.2f} GB",
        ]
    versions = ", ".join(f"{name} {v}" for name, v in plan.versions.items())
    lines.append(
        f"compiled here in {plan.compile_seconds:.0f} s with "
        f"{plan.host_bytes / GB:.1f} GB of host memory, optimization level "
        f"{plan.optimization}; {versions}"
    )
    return "\n".join(lines)


def verdict(plan: Plan) -> str:
    """One line: fits or not, and if not the largest buffers."""
    peak, limit = plan.peak_bytes / GB, plan.memory_bytes / GB
    if plan.fits:
        return f"FITS: peak {peak:.2f} GB a chip"
    largest = "; ".join(
        f"{b.bytes / GB:.2f} GB {b.shape}" + (f" of {b.operator}" if b.operator else "")
        for b in plan.buffers[:3]
    )
    what = "buffers"
    if any(b.whole for b in plan.buffers):
        what = f"arrays, before the {plan.chips} chips share them"
    return (
        f"DOES NOT FIT: needs {peak:.2f} GB of {limit:.2f} GB a chip; the largest "
        f"{what}: {largest or 'not told by the compiler'}. Lower the batch, set "
        "config.network.remat or training.accumulation, or shard over more chips."
    )


def _parts(plan: Plan) -> list[tuple[str, int]]:
    return [(name, size) for name, size in plan.parts.items() if size]


def _traffic(traffic: Mapping[str, collectives.Traffic]) -> list[str]:
    if not traffic:
        return ["collectives: none"]
    rows = [
        f"  {kind:<20}{t.count:>7} of {t.bytes / GB:9.4f} GB, the largest "
        f"{t.largest / 1e6:.3f} MB"
        for kind, t in sorted(traffic.items())
    ]
    return ["collectives a run and chip (whole arrays):", *rows]
