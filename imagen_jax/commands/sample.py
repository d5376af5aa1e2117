"""`imagen-jax sample`: draw pictures from prompts with a trained cascade."""

import argparse
import json
import pathlib
import sys
import time

from imagen_jax import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to draw")
    parser.add_argument(
        "--model",
        default="emoji",
        help='"emoji", a model directory, or hf://ORG/NAME (default emoji)',
    )
    parser.add_argument("--num", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    add_settings(parser)
    parser.add_argument(
        "--out", default="out", help="folder for the pictures (default: out)"
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare the sampling settings, which other commands share."""
    parser.add_argument(
        "--guidance",
        type=numbers(float),
        help="classifier-free guidance weight w, 1 is off; one value, or one for each "
        "stage with commas: 5,3,1",
    )
    parser.add_argument(
        "--steps", type=numbers(int), help="network calls; one value or one for each"
    )
    parser.add_argument(
        "--threshold",
        choices=("dynamic", "static", "none"),
        help="thresholding of the predicted picture at every step",
    )
    parser.add_argument(
        "--percentile", type=float, help="of dynamic thresholding, e.g. 0.995"
    )
    parser.add_argument(
        "--aug-level",
        type=numbers(float),
        help="noise on the low-resolution input of super-resolution, in [0, 1]",
    )
    parser.add_argument(
        "--solver",
        help='the sampler: "ancestral", "ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde", '
        '"euler", "heun" or "unipc" (docs/sampling.md has a table)',
    )
    parser.add_argument(
        "--grid",
        type=numbers(str),
        help='at which times the network is called: "uniform", "logsnr", "karras"; '
        'of a discrete schedule also "leading", "trailing", "linspace", or one of '
        "DeepFloyd IF's fast27, smart27, smart50, "
        "smart100, smart185, super27, super40, super100, which bring their number of "
        "steps; one value or one for each",
    )


def settings_of(args: argparse.Namespace) -> dict:
    """The sampling settings that were given, as `TextToImage.sample` takes them."""
    names = ("guidance", "steps", "threshold", "percentile", "aug_level", "solver")
    return {name: getattr(args, name) for name in (*names, "grid")}


def bar_of(bar):
    """A function that reports drawing to a progress bar."""

    def progress(stage: str, done: int, total: int) -> None:
        bar.total = total
        bar.set_description(stage, refresh=False)
        bar.update(done - bar.n)

    return progress


def numbers(kind):
    """Parse "5" or "5,3,1" into a number or a tuple of numbers."""

    def parse(text: str):
        values = tuple(kind(v) for v in text.split(","))
        return values[0] if len(values) == 1 else values

    parse.__name__ = f"{kind.__name__} (or several with commas)"
    return parse


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Draw, and write every stage's PNG files, a contact sheet and the settings."""
    del rest
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    probe = out / ".writable"
    probe.touch()  # Fails now, in one line, rather than after drawing.
    probe.unlink()

    import tqdm

    from imagen_jax import loading

    started = time.time()
    model = loading.load(args.model)
    if unknown := model.unknown_words(args.prompts):
        print(
            f"The model {args.model} never saw: {', '.join(unknown)}. It draws what "
            "the other words say.",
            file=sys.stderr,
        )
    settings = settings_of(args)
    with tqdm.tqdm(desc="compiling", unit="step", dynamic_ncols=True) as bar:
        samples = model.sample(
            args.prompts,
            num=args.num,
            seed=args.seed,
            progress=bar_of(bar),
            **settings,
        )
    recipes = model.recipes_with(**settings)
    written = write(samples, recipes, args, out)
    seconds = time.time() - started
    print(f"{len(samples.prompts)} pictures in {seconds:.0f} s: {written}")
    return 0


def write(samples, recipes, args: argparse.Namespace, out: pathlib.Path) -> str:
    """Write the files; returns the contact sheet's path."""
    from PIL import Image, PngImagePlugin

    stages = []
    for name, recipe in zip(samples.stage_names, recipes, strict=True):
        stages.append(
            {
                "stage": name,
                "solver": type(recipe.solver).__name__,
                "steps": recipe.steps,
                "calls": recipe.steps * recipe.solver.calls,
                "threshold": recipe.threshold,
                "guidance": recipe.w,
                "percentile": recipe.percentile,
                "threshold_cap": recipe.threshold_cap,
                "aug_level": recipe.aug_level,
                "grid": recipe.grid.name,
            }
        )
    common = {
        "imagen_jax": __version__,
        "model": args.model,
        "seed": args.seed,
        "stages": stages,
    }
    files = []
    for name, pictures in zip(samples.stage_names, samples.stages, strict=True):
        size = pictures.shape[1]
        for i, picture in enumerate(pictures):
            settings = {
                **common,
                "prompt": samples.prompts[i],
                "number": i % args.num,
                "stage": name,
            }
            text = PngImagePlugin.PngInfo()
            text.add_itxt("imagen_jax", json.dumps(settings))
            path = out / f"{i:03d}_{name}_{size}.png"
            Image.fromarray(picture).save(path, pnginfo=text)
            files.append({"file": path.name, "prompt": samples.prompts[i]})
    sheet = out / "sheet.png"
    samples.sheet().save(sheet)
    (out / "settings.json").write_text(
        json.dumps({**common, "files": files}, indent=2) + "\n"
    )
    return str(sheet)
