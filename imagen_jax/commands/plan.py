"""`imagen-jax plan`: compile a config for TPUs that are not here; does it fit?"""

import argparse
import json

from imagen_jax.commands import configs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", help="name or file of a config")
    what.add_argument(
        "--model", help="a shipped model, a model directory or hf://ORG/NAME"
    )
    parser.add_argument("--stage", help="of --model; default: its first")
    parser.add_argument(
        "--topology",
        required=True,
        help="a slice as libtpu writes it (v4:4x8x8, v5e:4x4) or by its Cloud name "
        "(v4-512, v5litepod-16)",
    )
    parser.add_argument(
        "--mesh",
        help="sizes of the mesh, 'data=4,fsdp=-1'; default: the config's",
    )
    parser.add_argument("--batch", type=int, help="default: data.batch_size, or 1")
    parser.add_argument(
        "--program", default="train", choices=("train", "sample", "encode")
    )
    parser.add_argument(
        "--utilisation",
        type=float,
        default=0.4,
        help="share of the chips' peak, assumed for the days (default 0.4)",
    )
    parser.add_argument(
        "--optimization",
        default="default",
        help="the compiler's level: default, O0 to O3; O1 compiles sooner and plans "
        "memory alike",
    )
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="walk batch, remat and mesh of a training step by an analytic model of "
        "memory, compile the best ones and print what fits, best first",
    )
    parser.add_argument(
        "--compile",
        type=int,
        default=1,
        help="how many of a sweep's best candidates to compile (default 1)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(takes_config=True)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the plan; status 1 if the program does not fit."""
    config = stage_of(args) if args.model else configs.load(args.config)
    name = args.config or f"{args.model} {config.name}"
    configs.override(config, rest)

    if args.sweep and (args.mesh or args.program != "train"):
        raise ValueError("--sweep: walks meshes of training; leave --mesh, --program.")

    from imagen_jax.planning import topologies

    slices = config.mesh.get("slices", 1)
    topology = topologies.parse(args.topology, slices)
    topologies.prepare_environment()

    from imagen_jax import partitioning
    from imagen_jax.planning import plans, programs, sweeps

    settings = {"utilisation": args.utilisation, "level": args.optimization}
    devices = topologies.devices(topology)
    if args.batch is not None:
        config.data.batch_size = args.batch
    if args.sweep:
        found = sweeps.sweep(
            name, config, topology, devices, compiled=args.compile, **settings
        )
        print(json.dumps(found.json()) if args.json else sweeps.text(found))
        fits = any(plan.fits for plan in found.plans) or not found.plans
        return 0 if fits and found.candidates else 1
    sizes = config.mesh
    if args.mesh:
        sizes = {**parse_mesh(args.mesh), "slices": slices}
    mesh = partitioning.make_mesh(sizes, devices)
    batch = config.data.batch_size if args.program == "train" else args.batch or 1
    program = programs.make(config, args.program, mesh, batch)
    plan = plans.make(name, program, topology, **settings)
    print(json.dumps(plan.json()) if args.json else plans.text(plan))
    return 0 if plan.fits else 1


def stage_of(args: argparse.Namespace):
    """The config of a model directory's stage, on a mesh where it says none.

    Raises:
      ValueError: if there is no such stage, or it is asked to be trained.
    """
    from imagen_jax import hub, loading

    if args.program == "train" or args.sweep:
        raise ValueError("--model: takes --program sample or encode.")
    found = {c.name: c for c in loading.stage_configs(hub.model_folder(args.model))}
    stage = args.stage or next(iter(found), "")
    if stage not in found:
        raise ValueError(
            f"--stage: must be one of {list(found)} of {args.model}, got {stage!r}."
        )
    config = found[stage]
    if "mesh" not in config:
        config.mesh = {"slices": 1, "data": 1, "fsdp": -1, "tensor": 1}
    if "data" not in config:
        config.data = {"batch_size": 1}
    return config


def parse_mesh(text: str) -> dict[str, int]:
    """Sizes by axis of 'data=4,fsdp=-1'.

    Raises:
      ValueError: for a text of another form.
    """
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): int(size) for name, size in pairs}
    except ValueError as error:
        raise ValueError(
            f"--mesh: must be like data=4,fsdp=-1, got {text!r}."
        ) from error
