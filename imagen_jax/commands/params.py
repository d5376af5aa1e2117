"""`imagen-jax params`: the modules of a config and their parameter counts."""

import argparse
import json

from imagen_jax.commands import configs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument("--config", required=True, help="name or file of a config")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(takes_config=True)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Count by shape evaluation alone: nothing is allocated."""
    config = configs.load(args.config)
    configs.override(config, rest)

    from imagen_jax import build

    counts = build.param_counts(config)
    total = sum(counts["network"].values())
    frozen = sum(counts["text encoder (frozen)"].values())
    if args.json:
        table = {"config": args.config, "total": total, "frozen": frozen}
        print(json.dumps({**table, "modules": counts["network"]}, indent=2))
        return 0
    width = max(len(name) for part in counts.values() for name in part)
    for part, modules in counts.items():
        if not modules:
            continue
        print(part)
        for name, count in modules.items():
            print(f"  {name:<{width}} {count:>15,}")
        print(f"  {'total':<{width}} {sum(modules.values()):>15,}")
    return 0
