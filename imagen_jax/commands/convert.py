"""`imagen-jax convert`: a published model as a model directory."""

import argparse
import json
import pathlib
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "--from",
        dest="kind",
        required=True,
        metavar="FORMAT",
        help="t5, byt5, t5x, clip, bert or deepfloyd",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a folder, gs://BUCKET/PATH or hf://ORG/NAME[@REVISION][/FOLDER]; several "
        "where a model has its parts in several, base first",
    )
    parser.add_argument("--to", required=True, help="the model directory to write")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "int8"),
        default="bfloat16",
        help="of the stored parameters (default: bfloat16)",
    )
    parser.add_argument(
        "--variant",
        choices=("fp16",),
        default="",
        help="of hf:// weights that are there in several types: half the download",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the format, e.g. --option layer=penultimate for clip",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print what becomes what, and write nothing",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Convert, or say what would be converted."""
    del rest
    from imagen_jax import converting, hub
    from imagen_jax.published import conversion

    options = dict(map(option, args.option))
    paths, names = [], []
    for i, path in enumerate(args.paths):
        without = converting.FIRST_ONLY.get(args.kind, ()) if i else ()
        found = hub.local(path, variant=args.variant, without=without)
        paths.append(found.folder)
        names.append(found.name)
    model = converting.read(args.kind, paths, options)
    conversion.check(model)
    if model.notice:
        print(model.notice.rstrip(), file=sys.stderr)
    if args.dry_run:
        return tell(model, args.dtype)
    import tqdm

    with tqdm.tqdm(
        unit="B", unit_scale=True, unit_divisor=1000, dynamic_ncols=True
    ) as bar:

        def report(what: str, done: int, total: int) -> None:
            if bar.desc != f"{what}: " or bar.total != total:
                bar.reset(total)
                bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        size = converting.convert(
            model,
            args.to,
            dtype=args.dtype,
            origin={"format": args.kind, "paths": names, "options": options},
            report=report,
        )
    print(f"{args.to}: {', '.join(p.name for p in model.parts)}, {size / 1e6:.1f} MB")
    if model.stages:
        print(f'Draw with: imagen-jax sample "a prompt" --model {args.to}')
    return 0


def option(text: str) -> tuple[str, object]:
    """Parse NAME=VALUE; a value that is JSON becomes what it says.

    Raises:
      ValueError: without "=".
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option: must be NAME=VALUE, got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def tell(model, dtype: str) -> int:
    """Print the dry run's table and its totals."""
    from imagen_jax.published import conversion

    for part in model.parts:
        print(f"{part.name}.safetensors <- {part.tensors.where}")
    for row in conversion.rows(model, dtype):
        if row.ours:
            made = f"{row.part}/{row.ours} {list(row.shape)} {row.stored}"
            print(f"  {made} <- {row.theirs}")
        else:
            print(f"  not read: {row.theirs} {list(row.shape)}")
    for name, path in model.files.items():
        print(f"{name} <- {pathlib.Path(path).name}")
    for part in model.parts:
        print(
            f"{part.name}: {conversion.parameters(part):,} parameters, "
            f"{conversion.size(part, dtype) / 1e6:,.1f} MB as {dtype}"
        )
    return 0
