"""Which batch, remat policy and mesh to train with: a model first, then a compile."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections

from imagen_jax import build, partitioning
from imagen_jax.models import layers
from imagen_jax.planning import memory, plans, programs
from imagen_jax.planning import topologies as topologies_lib
from imagen_jax.training import layout

# Forward passes that a step computes beside the backward's two: each block once more,
# each level and in it each block once more.
RECOMPUTED = {"none": 0, "block": 1, "full": 2}
MARGIN = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A setting and what the analytic model says of it; all estimates.

    Attributes:
      remat: of the network.
      mesh: sizes of its axes.
      accumulation: parts that the batch is computed in.
      at_once: examples of one part, all chips together.
      bytes: memory a chip.
      seconds: a step.
    """

    remat: str
    mesh: dict[str, int]
    accumulation: int
    at_once: int
    bytes: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep found: candidates best first, and plans of those compiled."""

    config: str
    topology: str
    batch: int
    steps: int
    candidates: tuple[Candidate, ...]
    plans: tuple[plans.Plan, ...]

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "config": self.config,
            "topology": self.topology,
            "batch": self.batch,
            "steps": self.steps,
            "candidates": [dataclasses.asdict(c) for c in self.candidates],
            "plans": [plan.json() for plan in self.plans],
        }


def sweep(
    name: str,
    config: build.Config,
    topology: topologies_lib.Topology,
    devices: list[Any],
    *,
    utilisation: float,
    level: str,
    compiled: int = 1,
) -> Sweep:
    """Walk remat policies, meshes and parts of the batch; compile the best.

    Of one remat policy and mesh only the largest part that fits by the model is a
    candidate. Candidates are compiled in order until `compiled` of them fit.
    """
    candidates = rank(config, topology, devices, utilisation)
    found: list[plans.Plan] = []
    for candidate in candidates:
        if sum(plan.fits for plan in found) >= compiled:
            break
        changed = apply(config, candidate)
        mesh = partitioning.make_mesh(changed.mesh, devices)
        program = programs.make(changed, "train", mesh, config.data.batch_size)
        found.append(
            plans.make(name, program, topology, utilisation=utilisation, level=level)
        )
    return Sweep(
        config=name,
        topology=str(topology),
        batch=config.data.batch_size,
        steps=config.training.steps,
        candidates=tuple(candidates),
        plans=tuple(found),
    )


def apply(config: build.Config, candidate: Candidate) -> build.Config:
    """The config with a candidate's settings."""
    config = copy.deepcopy(config)
    config.network.remat = candidate.remat
    config.mesh = ml_collections.ConfigDict(candidate.mesh)
    config.training.accumulation = candidate.accumulation
    return config


def rank(
    config: build.Config,
    topology: topologies_lib.Topology,
    devices: list[Any],
    utilisation: float,
) -> list[Candidate]:
    """All settings that fit by the analytic model, the quickest step first.

    Meshes that training would refuse, for parameters that they leave whole, are none.
    """
    kept = {remat: memory.kept(config, remat) for remat in layers.REMAT}
    limit = MARGIN * topology.chip.memory_gib * 2**30
    max_replicated = build.loop_settings(config, workdir="").max_replicated
    batch, flops, found = config.data.batch_size, 0.0, []
    for sizes in meshes(topology):
        ways = sizes["data"] * sizes["fsdp"]
        if batch % ways:
            continue
        mesh = partitioning.make_mesh(sizes, devices)
        program = programs.make(_plain(config), "train", mesh, batch)
        state = program.arguments[1]
        if sizes["fsdp"] > 1 and layout.replicated_share(state.params) > max_replicated:
            continue
        flops = flops or program.count_flops()
        passes = 3 * (1 + layout.padded_share(state.params)) if sizes["fsdp"] > 1 else 2
        for remat in layers.REMAT:
            waiting = _gathered(program, remat, sizes)
            parts, size = _fewest_parts(
                program,
                batch // ways,
                limit,
                lambda n, r=remat, b=waiting: b + memory.activations(kept, r, n),
            )
            if not parts:
                continue
            time = seconds(
                flops * (1 + RECOMPUTED[remat] / 3),
                program.parameters,
                topology,
                utilisation,
                passes=parts * passes,
            )
            found.append(
                Candidate(
                    remat=remat,
                    mesh=sizes,
                    accumulation=parts,
                    at_once=batch // parts,
                    bytes=size,
                    seconds=time,
                )
            )
    return sorted(found, key=lambda c: (c.seconds, c.bytes))


def _fewest_parts(
    program: programs.Program,
    per_chip: int,
    limit: float,
    activations: Callable[[float], int],
) -> tuple[int, int]:
    """(parts of the batch, bytes a chip) of the largest that fits, or (0, 0)."""
    for parts in _divisors(per_chip):
        # Gradients as parameters, and once more as a sum over parts.
        sums = program.parts["parameters"] * (2 if parts > 1 else 1)
        size = sum(program.parts.values()) + sums + activations(per_chip / parts)
        if size <= limit:
            return parts, int(size)
    return 0, 0


def seconds(
    flops: float,
    parameters: float,
    topology: topologies_lib.Topology,
    utilisation: float,
    *,
    passes: float,
) -> float:
    """An estimate of a step: products, then passes of all kernels in bfloat16.

    Of each part of the batch fsdp gathers them twice and scatters their gradients, and
    more where parts are finer than a tile; without it the gradients are reduced, which
    is two passes. Nothing is taken to overlap.
    """
    work = flops / (topology.chips * topology.chip.tflops * 1e12 * utilisation)
    passes *= topology.chips > 1
    return work + passes * 2 * parameters / (topology.chip.ici_gb * 1e9)


def _gathered(program: programs.Program, remat: str, sizes: dict[str, int]) -> int:
    """Bytes of the kernels that wait, gathered in bfloat16, for the backward pass."""
    return int(2 * program.parameters) * (sizes["fsdp"] > 1 and remat == "none")


def meshes(topology: topologies_lib.Topology) -> list[dict[str, int]]:
    """Data against fsdp, in powers of two; slices are joined by data alone."""
    inside = topology.chips // topology.slices
    return [
        {"slices": topology.slices, "data": topology.chips // fsdp, "fsdp": fsdp}
        for fsdp in _divisors(inside)
        if fsdp & (fsdp - 1) == 0
    ]


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _plain(config: build.Config) -> build.Config:
    """The config in one part: its state's bytes and the model's operations."""
    config = copy.deepcopy(config)
    config.training.accumulation = 1
    config.training.max_replicated = 1.0
    return config


def text(found: Sweep) -> str:
    """A table of the candidates, and the plans of those compiled, fitting first."""
    lines = [
        f"{found.config} on {found.topology}, batch {found.batch}; estimates of the "
        "analytic model, quickest first:",
        f"  {'remat':<6} {'mesh':<22} {'at once':>8} {'parts':>6} {'GB':>6} {'s':>8}",
    ]
    for c in found.candidates[:10]:
        mesh = " x ".join(f"{k} {v}" for k, v in c.mesh.items() if v > 1)
        lines.append(
            f"  {c.remat:<6} {mesh or 'one chip':<22} {c.at_once:>8} "
            f"{c.accumulation:>6} {c.bytes / plans.GB:>6.2f} {c.seconds:>8.3f}"
        )
    if not found.candidates:
        lines.append("  none fits: shard over more chips.")
    for plan in sorted(found.plans, key=lambda plan: not plan.fits):
        lines += ["", plans.text(plan)]
    return "\n".join(lines)
