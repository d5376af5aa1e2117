"""Make the pictures of the README and of docs/, from a model and from finished runs.

    python docs/make_figures.py samples --model emoji
    python docs/make_figures.py runs runs/text runs/base runs/sr_64 runs/sr_256
    python docs/make_figures.py thresholds FOLDER

`samples` draws the held-out grid (the first prompts of the held-out split, none
chosen), guidance weights, thresholding, and the three stages. `runs` plots the loss of
each run and joins its sample sheets. `thresholds` plots what `imagen-jax evaluate
--suite thresholds --out FOLDER` found over guidance weights, and shows the first
prompts. The last two need `pip install matplotlib`.
"""

import argparse
import json
import pathlib

import numpy as np
from PIL import Image

import imagen_jax
from imagen_jax.cascade.contact_sheet import contact_sheet
from imagen_jax.cascade.labelled_grid import labelled_grid
from imagen_jax.data import tasks
from imagen_jax.evaluation import composition_suite, sampling_study

IMAGES = pathlib.Path(__file__).parent / "images"
SEED = 0
GRID = 32
WEIGHTS = (1.0, 1.5, 2.0, 4.0, 8.0)
STRONG = 8.0
SHOWN = 2


def prompts(first: int, count: int) -> list[str]:
    """Held-out captions in the order in which the split has them."""
    source = tasks.by_name("emoji", "heldout")
    return [source.text(SEED, first + i) for i in range(count)]


def save(sheet: Image.Image, name: str) -> None:
    """Write a picture with few colours, small enough for a repository."""
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.png"
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


def samples(model_name: str) -> None:
    """Draw the sheets that show a model."""
    model = imagen_jax.load(model_name)
    some = prompts(0, GRID)
    drawn = model.sample(some, seed=SEED)
    save(contact_sheet(list(drawn.images), some, columns=8, cell=160), "samples")

    pictures, labels = [], []
    for i, prompt in enumerate(some[:4]):
        for name, stage in zip(drawn.stage_names, drawn.stages, strict=True):
            pictures.append(stage[i])
            labels.append(f"{name}: {stage.shape[1]} px; {prompt}")
    save(contact_sheet(pictures, labels, columns=6, cell=192), "stages")

    some = prompts(GRID, 4)
    rows = [model.sample(some, seed=SEED, guidance=(w, None, None)) for w in WEIGHTS]
    table(rows, some, [f"w = {w:g}" for w in WEIGHTS], "guidance")

    kinds = ("none", "static", "dynamic")
    rows = [
        model.sample(some, seed=SEED, guidance=(STRONG, None, None), threshold=kind)
        for kind in kinds
    ]
    table(rows, some, [f"{kind}, w = {STRONG:g}" for kind in kinds], "thresholding")


def table(rows, some: list[str], names: list[str], file: str) -> None:
    """One row a prompt, one column a setting."""
    pictures, labels = [], []
    for i, prompt in enumerate(some):
        for drawn, name in zip(rows, names, strict=True):
            pictures.append(drawn.images[i])
            labels.append(f"{name}: {prompt}")
    save(contact_sheet(pictures, labels, columns=len(names), cell=176), file)


def runs(folders: list[pathlib.Path]) -> None:
    """Plot every run's loss and join its sample sheets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(folders), figsize=(4 * len(folders), 3))
    for axis, folder in zip(np.atleast_1d(axes), folders, strict=True):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        records = [record for record in map(json.loads, lines) if "loss" in record]
        config = json.loads((folder / "config.json").read_text())
        steps = [record["step"] for record in records]
        losses = [record["loss"] for record in records]
        axis.plot(steps, losses)
        axis.set(title=config["name"], xlabel="step", yscale="log")
        axis.grid(True, which="both", alpha=0.3)
        print(f"{config['name']}: loss {losses[-1]:.4g} at step {steps[-1]}")
        sheets = sorted((folder / "samples").glob("*.png"))
        if sheets:
            pictures = [np.asarray(Image.open(p).convert("RGB")) for p in sheets]
            joined = np.concatenate(pictures, axis=1)
            save(Image.fromarray(joined), f"run_{config['name']}")
    figure.tight_layout()
    figure.savefig(IMAGES / "losses.png", dpi=80)


def thresholds(folder: pathlib.Path) -> None:
    """Plot shares right and saturated over w, and show two prompts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    report = json.loads((folder / "report.json").read_text())
    rows = report["rows"]
    kinds = list(dict.fromkeys(name.split()[0] for name in rows))
    values = list(dict.fromkeys(name.split("=")[1] for name in rows))
    weights = [float(w) for w in values]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for kind in kinds:
        found = [rows[f"{kind} w={w}"] for w in values]
        share = [100 * row["share"] for row in found]
        ends = np.array([row["interval_95"] for row in found]).T * 100
        axes[0].errorbar(weights, share, abs(ends - share), marker="o", capsize=3)
        saturated = [100 * row["saturation"] for row in found]
        axes[1].plot(weights, saturated, marker="o", label=kind)
    true = 100 * report["true"]["saturation"]
    axes[1].axhline(true, color="grey", linestyle="--", label="true pictures")
    axes[0].set(ylabel="pictures right, %")
    axes[1].set(ylabel="channel values at 0 or 255, %")
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(weights, values)
        axis.set_xlabel("guidance weight w")
        axis.grid(True, alpha=0.3)
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(IMAGES / "threshold_curves.png", dpi=80)

    source = composition_suite.prompts(sampling_study.POOL, SEED)
    cells, names = [], []
    for i in range(SHOWN):
        for kind in kinds:
            files = [folder / "pictures" / f"{kind}_w={w}" / "0000.npz" for w in values]
            cells.append([np.load(file)["judged"][i] for file in files])
            names.append(f"{kind}: {source[i].caption}")
    save(
        labelled_grid(cells, x=("w", values), y=("", names), cell=112), "threshold_grid"
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the pictures of the docs.")
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("samples", help="draw sheets with a model")
    drawing.add_argument("--model", default="emoji", help="a model directory or name")
    plotting = commands.add_parser("runs", help="plot finished runs")
    plotting.add_argument("folders", nargs="+", type=pathlib.Path)
    studied = commands.add_parser("thresholds", help="plot a study of thresholds")
    studied.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "samples":
        samples(arguments.model)
    elif arguments.command == "thresholds":
        thresholds(arguments.folder)
    else:
        runs(arguments.folders)


if __name__ == "__main__":
    main()
