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
        "--after",
        metavar="MODEL",
        help="a model whose last stage the first of these begins at: its stages, text "
        "encoder and licence are copied before them",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "int8"),
        default="bfloat16",
        help="of the stored parameters (default: bfloat16); int8 also prints each "
        "stage's held-out loss before and after",
    )
    parser.add_argument(
        "--raw", action="store_true", help="the raw parameters instead of their EMA"
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Write model.json and one safetensors file a network."""
    del rest
    from imagen_jax import build, export

    part = "params" if args.raw else "ema_params"
    kind = {"dtype": args.dtype, "part": part}
    if args.after:
        size = export.append(args.after, args.stages, args.out, **kind)
    else:
        size = export.export(args.stages, args.out, **kind)
    print(f"{args.out}: {len(args.stages)} stages, {size / 1e6:.1f} MB")
    if args.dtype == "int8" and build.read_config(args.stages[0]).kind == "stage":
        for name, exact, stored in export.stored_losses(args.stages, args.out, part):
            print(f"{name}: held-out loss {exact:.5f}, as stored {stored:.5f}")
    return 0
