"""`imagen-jax export`: trained stages and their text encoder as one model directory."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "stages",
        nargs="+",
        metavar="WORKDIR",
        help="working directories of the trained stages, base first",
    )
    parser.add_argument("--out", required=True, help="the model directory to write")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="bfloat16",
        help="of the stored parameters (default: bfloat16)",
    )
    parser.add_argument(
        "--raw", action="store_true", help="the raw parameters instead of their EMA"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write model.json and one safetensors file a network."""
    del rest
    from imagen_jax import build

    part = "params" if args.raw else "ema_params"
    size = build.export(args.stages, args.out, dtype=args.dtype, part=part)
    print(f"{args.out}: {len(args.stages)} stages, {size / 1e6:.1f} MB")
    return 0
