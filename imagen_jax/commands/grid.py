"""`imagen-jax grid`: one picture for each pair of values of two settings."""

import argparse
import json
import sys

from imagen_jax.commands import sample, sampling_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "prompt", nargs="?", default="", metavar="PROMPT", help="what to draw"
    )
    values = (
        'NAME=VALUE,VALUE,... of a setting, "seed" or "prompt"; one value a stage with '
        'slashes, guidance=5/1/1,9/1/1; with "|" between values they may hold commas'
    )
    parser.add_argument(
        "--x", type=axis, required=True, metavar="AXIS", help=f"across: {values}"
    )
    parser.add_argument("--y", type=axis, metavar="AXIS", help="down, in the same way")
    sampling_flags.add_model(parser)
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    sampling_flags.add_settings(parser)
    parser.add_argument("--until", metavar="STAGE", help="the last stage to draw")
    parser.add_argument(
        "--cell", type=int, default=192, help="side of a cell in pixels (default 192)"
    )
    parser.add_argument(
        "--out", default="grid", help="folder for grid.png, grid.json and the cells"
    )


def axis(text: str) -> tuple[str, tuple, tuple[str, ...]]:
    """Parse "guidance=1,5/2/1" into (name, values, labels)."""
    name, equals, rest = text.partition("=")
    name = name.strip().replace("-", "_")
    labels = tuple(v.strip() for v in rest.split("|" if "|" in rest else ","))
    if not (name and equals and all(labels)):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE,...")
    if name == "prompt":
        return name, labels, labels
    if name == "seed":
        return name, tuple(int(label) for label in labels), labels
    parts = [[sampling_flags.value(v) for v in label.split("/")] for label in labels]
    return name, tuple(v[0] if len(v) == 1 else tuple(v) for v in parts), labels


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Draw the cells, and write them, the labelled grid and its JSON."""
    del rest
    out = sample.writable(args.out)

    import tqdm

    from imagen_jax.cascade import picture_files, sweep, text_to_image

    model = sample.load(args)
    x = sweep.Axis(*args.x)
    y = sweep.Axis(*args.y) if args.y else sweep.Axis()
    total = len(x.values) * len(y.values)
    grid = [[None] * len(x.values) for _ in y.values]
    cells = []
    with (
        sample.stoppable() as asked,
        tqdm.tqdm(total=total, unit="cell", dynamic_ncols=True) as bar,
    ):

        def progress(moment) -> None:
            bar.set_description(f"{moment.stage} {moment.done}/{moment.total}")
            if asked():
                raise text_to_image.Stop

        for column, row, samples in sweep.sweep(
            model,
            x,
            y,
            prompt=args.prompt,
            seed=args.seed,
            until=args.until,
            progress=progress,
            **sampling_flags.settings_of(args),
        ):
            file = out / f"row{row:02d}_column{column:02d}.png"
            file.write_bytes(picture_files.png(samples))
            grid[row][column] = samples.images[0]
            cells.append(told(samples, x.labels[column], y.labels[row], file.name))
            bar.update()
    write(args, (x, y), grid, cells, out)
    if len(cells) == total:
        print(f"{total} cells: {out / 'grid.png'}")
        return 0
    print(f"imagen-jax: stopped after {len(cells)} of {total} cells.", file=sys.stderr)
    return sample.STOPPED


def told(samples, x: str, y: str, file: str) -> dict:
    """What the JSON tells of a cell."""
    return {
        "x": x,
        "y": y,
        "file": file,
        "prompt": samples.prompts[0],
        "seed": samples.seeds[0],
        "stages": list(samples.settings),
    }


def write(args: argparse.Namespace, axes: tuple, grid: list, cells: list, out) -> None:
    """Write grid.png, if there is a cell, and grid.json."""
    from imagen_jax.cascade import labelled_grid

    x, y = axes
    settings = {
        "model": args.model or "emoji",
        "x": {"name": x.name, "values": x.labels},
        "y": {"name": y.name, "values": y.labels} if y.name else None,
        "cells": cells,
    }
    (out / "grid.json").write_text(json.dumps(settings, indent=2) + "\n")
    if not cells:
        return
    fixed = {
        "seed": args.seed,
        **sampling_flags.settings_of(args),
        "recipe": args.recipe,
    }
    for name in (x.name, y.name):
        fixed.pop(name, None)
    given = ", ".join(f"{k} {v}" for k, v in fixed.items() if v is not None)
    title = f"{args.prompt} ({given})" if args.prompt else given
    picture = labelled_grid.labelled_grid(
        grid,
        x=(x.name, x.labels),
        y=(y.name, y.labels),
        title=title,
        cell=args.cell,
    )
    picture.save(out / "grid.png")
