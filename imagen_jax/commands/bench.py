"""`imagen-jax bench`: time a config on the devices that are here."""

import argparse
import json
import sys

from imagen_jax.commands import configs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument("--config", required=True, help="name or file of a config")
    parser.add_argument(
        "--program", default="train", choices=("train", "sample", "encode")
    )
    parser.add_argument(
        "--batch", type=int, help="default: data.batch_size, or one a device"
    )
    parser.add_argument("--runs", type=int, default=10, help="timed ones")
    parser.add_argument("--warmup", type=int, default=2, help="runs before them")
    parser.add_argument(
        "--no_products",
        action="store_true",
        help="do not time convolutions and matrix products alone",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(takes_config=True)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the timing."""
    config = configs.load(args.config)
    configs.override(config, rest)

    import jax

    from imagen_jax.benchmark import timing

    batch = args.batch
    if batch is None:
        training = args.program == "train"
        batch = config.data.batch_size if training else jax.device_count()
    found = timing.measure(
        args.config,
        config,
        args.program,
        batch=batch,
        runs=args.runs,
        warmup=args.warmup,
        with_products=not args.no_products,
        report=lambda line: print(f"bench: {line}", file=sys.stderr),
    )
    print(json.dumps(found.json()) if args.json else timing.text(found))
    return 0
