"""`imagen-jax sample`: draw pictures from prompts with a trained cascade."""

import argparse
import contextlib
import json
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator

STOPPED = 130  # The exit status after Ctrl-C, as shells have it.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw")
    add_model(parser)
    parser.add_argument("--num", type=int, help="pictures of each prompt (default 1)")
    parser.add_argument("--seed", type=int, help="of the noise (default 0)")
    parser.add_argument(
        "--negative",
        metavar="PROMPT",
        help="what guidance leads away from, in place of the model's own null",
    )
    parser.add_argument(
        "--interpolate",
        type=int,
        metavar="N",
        help="draw N pictures on the way from the first of two prompts to the second",
    )
    add_settings(parser)
    parser.add_argument(
        "--until", metavar="STAGE", help="the last stage to draw; --from goes on"
    )
    parser.add_argument(
        "--from",
        dest="begun",
        nargs="+",
        metavar="PATH",
        help="go on from a folder or PNGs that an earlier run wrote, with its prompts, "
        "seeds and settings",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=0,
        help="pictures of the denoising to keep of each stage, as animations",
    )
    parser.add_argument(
        "--animation",
        choices=("webp", "gif", "png"),
        default="webp",
        help="format of the animations (default: webp)",
    )
    parser.add_argument(
        "--out", default="out", help="folder for the pictures (default: out)"
    )


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


def load(args: argparse.Namespace, model: str | None = None):
    """The model of the flags."""
    from imagen_jax import loading

    fields = {"batch": args.batch, "mesh": args.mesh}
    found = loading.load(args.model or model or "emoji", args.dtype, **fields)
    if args.guide:
        return found.guided_by(loading.load(args.guide, args.dtype, **fields))
    return found


def writable(folder: str) -> pathlib.Path:
    """Make a folder; fails now, in one line, rather than after drawing."""
    out = pathlib.Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    probe = out / ".writable"
    probe.touch()
    probe.unlink()
    return out


@contextlib.contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Ctrl-C only asks to stop, and the value tells whether it did; twice ends."""
    asked = []

    def ask(*_) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        print("\nStopping; Ctrl-C again keeps nothing.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def bar() -> Iterator:
    """A progress bar as a `progress` callback; Ctrl-C stops, and keeps what is done."""
    from imagen_jax.cascade import progress_bar, text_to_image

    with stoppable() as asked, progress_bar.bar() as report:

        def progress(moment) -> None:
            report(moment)
            if asked():
                raise text_to_image.Stop

        yield progress


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Draw, and write every stage's PNG files, a contact sheet and the settings."""
    del rest
    check(args)
    out = writable(args.out)
    started = time.time()

    from imagen_jax.cascade import picture_files

    told = picture_files.first_settings(args.begun) if args.begun else {}
    model = load(args, told.get("model"))
    options = {"until": args.until, "frames": args.frames, **settings_of(args)}
    with bar() as progress:
        if args.begun:
            begun = picture_files.read(args.begun, model.stage_names)
            options["recipe"] = options["recipe"] or begun.settings
            samples = model.resume(begun, progress=progress, **options)
        else:
            warn_of_unknown(model, args)
            samples = model.sample(
                between(args.prompts, args.interpolate),
                negative=args.negative or "",
                num=1 if args.num is None else args.num,
                seed=args.seed or 0,
                progress=progress,
                **options,
            )
    picture_files.save(samples, out, moving=args.animation)
    count, seconds = len(samples.latest()), time.time() - started
    if samples.complete:
        print(f"{count} pictures in {seconds:.0f} s: {out / 'sheet.png'}")
        return 0
    done = ", ".join(
        f"{len(pictures)} of {name}"
        for name, pictures in zip(samples.stage_names, samples.stages, strict=True)
    )
    print(
        f"imagen-jax: stopped; of {len(samples.prompts)} pictures "
        + (f"{done} are drawn; --from {out} goes on." if done else "none is drawn."),
        file=sys.stderr,
    )
    return STOPPED


def check(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other."""
    if args.begun and (args.prompts or args.num is not None or args.seed is not None):
        raise ValueError(
            "--from: prompts, --num and --seed are in the files; leave them out."
        )
    if args.begun and (args.negative or args.interpolate):
        raise ValueError(
            "--from: the files hold --negative and what lies between prompts; leave "
            "--negative and --interpolate out."
        )
    if not args.begun and not args.prompts:
        raise ValueError("sample: at least one prompt is required; describe a picture.")


def between(prompts: list[str], count: int | None) -> list[str]:
    """`count` prompts from the first to the second; without a count the prompts.

    Raises:
      ValueError: unless there are two prompts, and both ends are drawn.
    """
    from imagen_jax.text import mixtures

    if count is None:
        return prompts
    if len(prompts) != 2 or count < 2:
        raise ValueError(
            "--interpolate: two prompts and at least 2 pictures are required, got "
            f"{len(prompts)} and {count}."
        )
    return mixtures.way(prompts[0], prompts[1], count)


def warn_of_unknown(model, args: argparse.Namespace) -> None:
    """Say which words the model's training never held."""
    if unknown := model.unknown_words(args.prompts):
        print(
            f"The model {model.name} never saw: {', '.join(unknown)}. It draws what "
            "the other words say.",
            file=sys.stderr,
        )
