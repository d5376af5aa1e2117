"""`imagen-jax evaluate`: draw held-out captions and check the pictures against them."""

import argparse
import json
import pathlib

from imagen_jax.commands import sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "--suite",
        choices=("shapes",),
        default="shapes",
        help="shapes: held-out captions of coloured shapes, right or wrong",
    )
    parser.add_argument("--model", required=True, help="a model directory or name")
    parser.add_argument("--num", type=int, default=256, help="captions (default 256)")
    parser.add_argument("--seed", type=int, default=0, help="of captions and noise")
    parser.add_argument("--out", help="folder for a sheet of the failures")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    sample.add_settings(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the share of captions whose picture is wholly right."""
    del rest
    import tqdm

    from imagen_jax import build
    from imagen_jax.evaluation import suites

    model = build.load(args.model)
    with tqdm.tqdm(desc="compiling", unit="step", dynamic_ncols=True) as bar:
        report = suites.shapes(
            model,
            args.num,
            args.seed,
            progress=sample.bar_of(bar),
            **sample.settings_of(args),
        )
    if args.out:
        out = pathlib.Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        if report.failures:
            report.sheet().save(out / "failures.png")
        (out / "report.json").write_text(json.dumps(report.table(), indent=1) + "\n")
    print(json.dumps(report.table(), indent=1) if args.json else report)
    return 0
