"""All full-size plans of docs/scaling.md, one after the other.

    python -m imagen_jax.planning.targets --out runs/plans
    python -m imagen_jax.planning.targets --out runs/plans --table

The first compiles what is missing. One target is one `imagen-jax plan` in a process of
its own, which gives its memory back; its JSON is kept, and a target whose JSON is there
is not compiled again. The table has what ran and names what did not.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any

AHEAD = "--config.data.embeddings=ahead"


@dataclasses.dataclass(frozen=True)
class Target:
    """One program on one slice, and what is asked of it.

    Attributes:
      name: of its file.
      config: of `imagen-jax plan`, as the next four.
      topology: a slice.
      program: "train", "sample" or "encode".
      flags: all others.
      peak_gb: the most memory a chip, 10^9 bytes; 0 asks only that it fits.
      level: of the compiler's optimization.
    """

    name: str
    config: str
    topology: str
    program: str
    flags: tuple[str, ...] = ()
    peak_gb: float = 0.0
    level: str = "O1"

    def command(self) -> list[str]:
        """What is run, behind `python -m`."""
        return [
            "imagen_jax",
            "plan",
            f"--config={self.config}",
            f"--topology={self.topology}",
            f"--program={self.program}",
            f"--optimization={self.level}",
            "--json",
            *self.flags,
        ]


def _train(name: str, config: str, topology: str, peak_gb: float = 0.0) -> Target:
    flags = ("--batch=2048", AHEAD)
    return Target(name, config, topology, "train", flags, peak_gb)


def _sweep(config: str, topology: str) -> Target:
    name = f"sweep_{config.split('/')[1]}_{topology.replace(':', '_')}"
    return Target(name, config, topology, "train", (AHEAD, "--sweep"))


def _deepfloyd(part: str, slice_name: str) -> Target:
    """Sampling DeepFloyd IF: one of its three networks at a time is on the chips.

    T5 is split over all chips; the pictures are shared out, one a chip, and the stages'
    networks with them, whole on each chip where its memory holds them.
    """
    topology = {"v5e_8": "v5e:2x4", "v6e_4": "v6e:2x2"}[slice_name]
    chips = int(slice_name[-1])
    config, program = {
        "t5": ("deepfloyd/if_i_xl", "encode"),
        "i_xl": ("deepfloyd/if_i_xl", "sample"),
        "ii_l": ("deepfloyd/if_ii_l", "sample"),
    }[part]
    mesh = f"--mesh=tensor={chips}" if part == "t5" else f"--mesh=data={chips}"
    name = f"deepfloyd_{part}_{slice_name}"
    return Target(name, config, topology, program, (f"--batch={chips}", mesh))


SMALLER = (
    "imagen/base_64_300m",
    "imagen/base_64_500m",
    "imagen/sr_256",
    "imagen/sr_1024",
)
# Of each kind of chip one slice's sweep compiles its best candidate; the other slices
# have the analytic model's. The targets are in the order of their cost.
CONFIRMED = ("v4:2x2x4", "v5e:4x4", "v6e:2x4")
MODELLED = ("v4:2x2x1", "v4:2x4x4", "v5e:8x8", "v6e:8x8")
TARGETS = (
    Target(
        "t5_xxl_1",
        "imagen/base_64",
        "v5e:1x1",
        "encode",
        ("--batch=64", "--config.text.length=256", "--mesh=data=1"),
        12.0,
    ),
    Target(
        "t5_xxl_8",
        "imagen/base_64",
        "v5e:2x4",
        "encode",
        ("--batch=64", "--config.text.length=256", "--mesh=tensor=8"),
        2.0,
    ),
    Target(
        "sample_base",
        "imagen/base_64",
        "v5e:1x1",
        "sample",
        ("--batch=8", "--mesh=data=1"),
        8.0,
    ),
    Target(
        "sample_1024",
        "imagen/sr_1024",
        "v5e:1x1",
        "sample",
        ("--batch=1", "--mesh=data=1"),
        6.0,
    ),
    Target(
        "sample_1024_spatial",
        "imagen/sr_1024",
        "v5e:2x2",
        "sample",
        ("--batch=1", "--mesh=spatial=4"),
        2.5,
    ),
    *(
        _deepfloyd(part, slice_name)
        for slice_name in ("v5e_8", "v6e_4")
        for part in ("t5", "i_xl", "ii_l")
    ),
    *(
        dataclasses.replace(
            _sweep(config, topology), flags=(AHEAD, "--sweep", "--compile=0")
        )
        for topology in MODELLED
        for config in SMALLER
    ),
    _train("train_sr_256_v4", "imagen/sr_256", "v4:4x4x8", 12.0),
    _train("train_sr_1024_v4", "imagen/sr_1024", "v4:4x4x8", 12.0),
    *(
        dataclasses.replace(
            _sweep(config, topology),
            name="compiled_" + _sweep(config, topology).name,
        )
        for topology in CONFIRMED
        for config in SMALLER
    ),
    _train("train_2b_v4", "imagen/base_64", "v4:4x8x8", 12.0),
    _train("train_2b_v5p", "imagen/base_64", "v5p:4x8x8"),
    _train("train_2b_v6e", "imagen/base_64", "v6e:16x16"),
    _train("train_2b_v5e", "imagen/base_64", "v5e:16x16"),
)


def run(targets: list[Target], out: pathlib.Path) -> None:
    """Plan each target whose file is not there; a failure is told and passed over."""
    for target in targets:
        path = out / f"{target.name}.json"
        if path.exists():
            continue
        command = target.command()
        print("python -m", *command, file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True
        )
        if done.stdout.strip():
            path.write_text(done.stdout)
        else:
            print(f"{target.name}: status {done.returncode}", file=sys.stderr)


def table(targets: list[Target], out: pathlib.Path) -> str:
    """What ran as Markdown, then the names of what did not."""
    rows = [
        "| target | chips | program, batch | level | peak GB a chip | asked | "
        "collectives GB (times the least, or kinds) | cycles in moves | sorts | "
        "at peak s | days at 40 % | host GB |",
        "|" + "---|" * 12,
    ]
    missing, models = [], []
    for target in targets:
        path = out / f"{target.name}.json"
        if not path.exists():
            missing.append(target.name)
            continue
        found = json.loads(path.read_text())
        models += _candidates(target, found)
        for plan in found.get("plans", [found]):
            rows.append(_row(target, plan))
    if models:
        rows += [
            "",
            "| config | slice | remat, mesh | at once x parts | GB | days at 40 % |",
            "|" + "---|" * 6,
            *models,
        ]
    if missing:
        rows += ["", f"Not run yet: {', '.join(missing)}."]
    return "\n".join(rows)


def _row(target: Target, plan: dict[str, Any]) -> str:
    asked = f"<= {target.peak_gb:g}" if target.peak_gb else "fits"
    peak = f"{plan['peak_bytes'] / 1e9:.2f}"
    met = plan["fits"] and (not target.peak_gb or float(peak) <= target.peak_gb)
    cells = (
        f"`{target.name}`",
        f"{plan['chips']} ({plan['topology']})",
        f"{plan['program']}, {plan['batch']}",
        plan["optimization"],
        peak if plan["fits"] else f"{peak}, does not fit",
        f"{asked}: {'met' if met else 'not met'}",
        _collectives(plan),
        f"{plan['moves_share']:.1%}",
        str(plan["sorts"]),
        f"{plan['seconds_at_peak']:.3f}",
        f"{plan['days']:.1f}" if plan["days"] else "",
        f"{plan['host_bytes'] / 1e9:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _collectives(plan: dict[str, Any]) -> str:
    size = f"{plan['collective_bytes'] / 1e9:.2f}"
    if not plan.get("least_bytes"):
        # What moves activations: how large the largest of each kind is.
        kinds = (
            f"{kind} up to {found['largest'] / 1e3:,.1f} KB"
            for kind, found in sorted(plan["traffic"].items())
        )
        return ", ".join([size, *kinds])
    return f"{size} ({plan['collective_bytes'] / plan['least_bytes']:.2f})"


def _candidates(target: Target, found: dict[str, Any]) -> list[str]:
    """A sweep's best candidate by the analytic model; all of it estimated."""
    if "candidates" not in found:
        return []
    cells = [target.config, found["topology"]]
    if not found["candidates"]:
        return [f"| {' | '.join([*cells, 'none fits', '', '', ''])} |"]
    best = found["candidates"][0]
    mesh = " x ".join(f"{k} {v}" for k, v in best["mesh"].items() if v > 1)
    days = best["seconds"] * found["steps"] / 86400
    cells += [
        f"{best['remat']}, {mesh or 'one chip'}",
        f"{best['at_once']} x {best['accumulation']}",
        f"{best['bytes'] / 1e9:.2f}",
        f"{days:.1f}",
    ]
    return [f"| {' | '.join(cells)} |"]


def main() -> None:
    """Run the targets, or print their table."""
    parser = argparse.ArgumentParser(
        description="All full-size plans of docs/scaling.md, one after the other."
    )
    parser.add_argument("--out", required=True, help="folder of one JSON a target")
    parser.add_argument("--only", default="", help="targets whose names begin so")
    parser.add_argument("--table", action="store_true", help="print what is there")
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    chosen = [target for target in TARGETS if target.name.startswith(args.only)]
    if not args.table:
        run(chosen, out)
    print(table(chosen, out))


if __name__ == "__main__":
    main()
