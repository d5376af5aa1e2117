"""Flags that all commands which draw share: the model, and how to draw with it."""

import argparse
import json
from collections.abc import Callable


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declare which model draws, and how it lies in memory."""
    parser.add_argument(
        "--model", help='"emoji" (default), a model directory, or hf://ORG/NAME'
    )
    parser.add_argument(
        "--guide",
        metavar="MODEL",
        help="a weaker model with the same text encoder, for --autoguidance",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the stages' networks (default: as each was trained)",
    )
    parser.add_argument(
        "--batch",
        type=numbers(int),
        default=8,
        help="the most pictures drawn at once; one value or one for each stage "
        "(default 8)",
    )
    parser.add_argument(
        "--mesh",
        type=mesh,
        help='devices: "fsdp=4" splits parameters over four; by default each has all',
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare the sampling settings, which other commands share."""
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="JSON of all settings of all stages, such as the settings.json of a run; "
        "flags come before it",
    )
    parser.add_argument(
        "--guidance",
        type=numbers(weight),
        help='classifier-free guidance weight w; 1 is the conditional model, "off" '
        "that at half the cost; one value, or one for each stage with commas: 5,3,off",
    )
    add_guidance(parser)
    parser.add_argument(
        "--steps", type=numbers(int), help="network calls; one value or one for each"
    )
    parser.add_argument(
        "--threshold",
        type=numbers(str),
        help="of the predicted picture at every step: dynamic, static or none; one "
        "value or one for each",
    )
    parser.add_argument(
        "--percentile",
        type=numbers(float),
        help="of dynamic thresholding, e.g. 0.995; one value or one for each",
    )
    parser.add_argument(
        "--aug-level",
        type=numbers(float),
        help="noise on the low-resolution input of super-resolution, in [0, 1]; one "
        "value or one for each",
    )
    parser.add_argument(
        "--solver",
        type=numbers(str),
        help="ancestral, ddim, ... (docs/sampling.md); one value or one for each",
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
    parser.add_argument(
        "--set",
        dest="others",
        action="append",
        default=[],
        type=assignment,
        metavar="NAME=VALUE",
        help="any other setting of a recipe or a solver, such as gamma=0.5; one value "
        "or one for each stage with commas; may be repeated",
    )


def add_guidance(parser: argparse.ArgumentParser) -> None:
    """Declare how the guidance is; each one value, or one for each stage."""
    parser.add_argument(
        "--guidance-schedule",
        type=numbers(str),
        help="of w along the run: constant, linear:BEGIN or oscillating:LOW:FIRST",
    )
    parser.add_argument(
        "--guidance-interval",
        type=pairs("guidance_low", "guidance_high"),
        metavar="LOW:HIGH",
        help="guide only where sigma / alpha is in it, at half the cost elsewhere",
    )
    parser.add_argument(
        "--guidance-rescale",
        type=numbers(weight),
        help="phi in [0, 1], how far x keeps the contrast of the conditional model's",
    )
    parser.add_argument(
        "--apg",
        type=pairs("apg_eta", "apg_norm"),
        metavar="ETA:NORM",
        help="adaptive projected guidance; 0:off has no bound of the norm",
    )
    parser.add_argument(
        "--autoguidance",
        type=numbers(weight),
        help="weight of leading away from the model of --guide",
    )


def settings_of(args: argparse.Namespace) -> dict:
    """The sampling settings that were given, as `TextToImage.sample` takes them."""
    from imagen_jax.cascade import settings

    names = ("guidance", "steps", "threshold", "percentile", "aug_level")
    given = {name: getattr(args, name) for name in (*names, "solver", "grid")}
    recipe = settings.read(args.recipe) if args.recipe else None
    for name in ("guidance_schedule", "guidance_rescale", "autoguidance"):
        given[name] = getattr(args, name)
    both = {**(args.guidance_interval or {}), **(args.apg or {})}
    return {"recipe": recipe, **given, **both, **dict(args.others)}


def numbers(kind: Callable):
    """Parse "5" or "5,3,1" into a value or a tuple of values."""

    def parse(text: str):
        values = tuple(kind(v) for v in text.split(","))
        return values[0] if len(values) == 1 else values

    parse.__name__ = f"{kind.__name__} (or several with commas)"
    return parse


def weight(text: str):
    """A number, or "off"."""
    return text if text == "off" else float(text)


def size(text: str) -> tuple[int, int]:
    """Parse "WIDTHxHEIGHT" into (height, width)."""
    width, by, height = text.lower().partition("x")
    if not (by and width.strip().isdigit() and height.strip().isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form WIDTHxHEIGHT")
    return int(height), int(width)


def pairs(first: str, second: str) -> Callable[[str], dict]:
    """Parse "0.3:3" or "0.3:3,off:off" into two settings, each as `numbers` has it."""

    def parse(text: str):
        both = [[weight(v) for v in part.split(":")] for part in text.split(",")]
        if any(len(pair) != 2 for pair in both):
            raise ValueError
        found = {first: [a for a, _ in both], second: [b for _, b in both]}
        return {n: tuple(v) if len(v) > 1 else v[0] for n, v in found.items()}

    parse.__name__ = "two numbers with a colon (or several with commas)"
    return parse


def value(text: str):
    """A number, true, false or null as JSON has it, or else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def assignment(text: str) -> tuple:
    """Parse "gamma=0.5" or "gamma=0.5,0,0" into (name, value or values)."""
    name, equals, rest = text.partition("=")
    if not (name and equals and rest):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name.strip().replace("-", "_"), numbers(value)(rest)


def mesh(text: str) -> dict[str, int]:
    """Parse "data=2,fsdp=4" into sizes of mesh axes; what is left is data's."""
    sizes = {}
    for part in text.split(","):
        name, size = assignment(part)
        if not isinstance(size, int):
            raise argparse.ArgumentTypeError(f"{part!r} is not of the form AXIS=NUMBER")
        sizes[name] = size
    return {"data": -1, **sizes} if -1 not in sizes.values() else sizes
