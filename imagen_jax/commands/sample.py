"""`imagen-jax sample`: draw pictures from prompts with a trained cascade."""

import argparse
import contextlib
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator

from imagen_jax.commands import sampling_flags

STOPPED = 130  # The exit status after Ctrl-C, as shells have it.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw")
    sampling_flags.add_model(parser)
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
    parser.add_argument(
        "--size",
        type=sampling_flags.size,
        metavar="WxH",
        help="of the pictures; any that the networks can halve (default: square)",
    )
    sampling_flags.add_settings(parser)
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
    options = {
        "until": args.until,
        "frames": args.frames,
        **sampling_flags.settings_of(args),
    }
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
                size=args.size,
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
    if args.begun and args.size:
        raise ValueError("--from: the files have their size; leave --size out.")
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
