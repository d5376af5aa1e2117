"""`imagen-jax embed`: encode a data set's captions once, before training."""

import argparse

from imagen_jax.commands import configs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "--config",
        required=True,
        help="the config that will be trained; its keys are overridden as in train",
    )
    parser.add_argument("--out", help="the folder of the embeddings")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8"),
        default="bfloat16",
        help="of the stored vectors (default: bfloat16); what int8 loses is printed",
    )
    parser.add_argument(
        "--batch_size", type=int, default=256, help="captions encoded at once"
    )
    parser.add_argument(
        "--share",
        type=share,
        default=(0, 1),
        metavar="I/N",
        help="this call's part of the work: 0/4 ... 3/4 on four machines",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="only say how much disk and time it would take, for --captions",
    )
    parser.add_argument(
        "--captions",
        type=lambda text: [int(float(part)) for part in text.split(",")],
        default=[10_000_000, 1_000_000_000],
        help="plan: how many, with commas (default: 1e7,1e9)",
    )
    parser.add_argument(
        "--tokens",
        type=float,
        help="plan: of a caption, on average (default: counted in the data set)",
    )
    parser.set_defaults(takes_config=True)


def share(text: str) -> tuple[int, int]:
    """Parse "2/4"."""
    part, _, of = text.partition("/")
    if not 0 <= int(part) < int(of):
        raise argparse.ArgumentTypeError(f"must be I/N with I < N, got {text!r}")
    return int(part), int(of)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Encode, or say what it would take."""
    config = configs.load(args.config)
    configs.override(config, rest)

    from imagen_jax import embed

    if args.plan:
        return plan(config, args)
    if not args.out:
        raise ValueError("embed: --out FOLDER is required.")
    import tqdm

    with tqdm.tqdm(unit="partition", dynamic_ncols=True) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        told = embed.embed(
            config,
            args.out,
            dtype=args.dtype,
            batch_size=args.batch_size,
            share=args.share,
            report=report,
        )
    if not told:
        print(f"{args.out}: this share is done; others are not yet.")
        return 0
    size = told["tokens"] * told["d_model"] * {"f": 4, "b": 2, "i": 1}[args.dtype[0]]
    print(
        f"{args.out}: {told['captions']} captions, {told['tokens']} tokens, "
        f"{size / 1e6:.1f} MB, relative error {told['relative_error']:.2e}. "
        f"Train with --config.data.embeddings={args.out}"
    )
    return 0


def plan(config, args: argparse.Namespace) -> int:
    """Print bytes and hours."""
    from imagen_jax import build, embed

    tokens = args.tokens
    if tokens is None:
        tokens = embed.measured_tokens(config)
    width = build.make_text_module(config).d_model
    print(f"{tokens:.1f} tokens a caption, vectors of {width}.")
    print(
        f"Estimates: {embed.UTILISATION:.0%} of a chip's bfloat16 peak is assumed, and "
        "no two captions alike."
    )
    for row in embed.plan(config, args.captions, tokens):
        print(f"{row.pop('captions'):,.0f} captions")
        for name, value in row.items():
            what, unit = name.rsplit(" ", 1)
            shown = (
                f"{value / 1e12:10.3f} TB" if unit == "bytes" else f"{value:10,.1f} h"
            )
            print(f"  {what:>10} {shown}" + ("" if unit == "bytes" else " of one chip"))
    return 0
