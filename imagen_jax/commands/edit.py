"""`imagen-jax edit`: change, extend, enlarge or vary a picture of one's own."""

import argparse
import json
import pathlib
import time
from typing import Any

from imagen_jax.commands import sample, sampling_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "prompts", nargs="+", metavar="PROMPT", help="what the picture shall show"
    )
    parser.add_argument(
        "--image", required=True, metavar="FILE", help="PNG, JPEG, WebP, ..."
    )
    parser.add_argument(
        "--mask",
        metavar="FILE",
        help="a picture of the same size: white is drawn anew, black stays to the bit",
    )
    parser.add_argument(
        "--outpaint",
        type=outpaint,
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="pixels to add around the picture, and to draw",
    )
    parser.add_argument(
        "--strength",
        type=sampling_flags.numbers(float),
        help="how noisy the picture is where drawing begins, in (0, 1]; default 0.6, "
        "under a mask 1; one value or one for each stage",
    )
    parser.add_argument(
        "--resample",
        type=sampling_flags.numbers(int),
        metavar="R",
        help="make each step R times, so that what is drawn agrees with what stays "
        "(RePaint); one value or one for each stage",
    )
    parser.add_argument(
        "--upscale", action="store_true", help="enlarge by super-resolution alone"
    )
    parser.add_argument(
        "--variations",
        action="store_true",
        help="draw anew from the small version, with --aug-level 0.3 by default",
    )
    parser.add_argument(
        "--size",
        type=sampling_flags.size,
        metavar="WxH",
        help="of the result (default: fitting)",
    )
    parser.add_argument(
        "--tile",
        type=sampling_flags.numbers(int),
        metavar="N",
        help="draw larger pictures in blended tiles of N pixels, for what exceeds the "
        "memory; one value or one for each stage",
    )
    parser.add_argument(
        "--colour-fix",
        type=sampling_flags.numbers(sampling_flags.weight),
        metavar="WIDTH",
        help="keep the colours of the low-resolution picture, blurred by WIDTH of its "
        "pixels, in super-resolution; one value or one for each stage",
    )
    parser.add_argument("--num", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument(
        "--negative", metavar="PROMPT", default="", help="what guidance leads away from"
    )
    sampling_flags.add_model(parser)
    sampling_flags.add_settings(parser)
    parser.add_argument(
        "--out", default="out", help="folder for the pictures (default: out)"
    )


def outpaint(text: str) -> tuple[int, ...]:
    """Parse "64,0,64,0" into four numbers."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form LEFT,TOP,RIGHT,BOTTOM, pixels >= 0"
        )
    return tuple(map(int, parts))


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Draw, and write every stage's PNG files, a contact sheet and the settings."""
    del rest
    check(args)
    picture = read(args.image, "--image")
    mask = None if args.mask is None else shown(read(args.mask, "--mask"))
    out = sample.writable(args.out)
    started = time.time()

    from imagen_jax.cascade import contact_sheet, editing, picture_files

    model = sample.load(args)
    request = request_of(model, args, picture, mask)
    tell_size(request, picture, args)
    sample.warn_of_unknown(model, args)
    given = {
        **{name: getattr(args, name) for name in ("strength", "resample")},
        **{name: getattr(args, name) for name in ("tile", "colour_fix")},
        **sampling_flags.settings_of(args),
    }
    settings = editing.with_defaults(request, given, varied=args.variations)
    with sample.bar() as progress:
        samples = model.sample(
            args.prompts,
            num=args.num,
            seed=args.seed,
            negative=args.negative,
            progress=progress,
            given=request,
            **settings,
        )
    picture_files.save(samples, out)
    record(args, out)
    drawn = samples.latest()
    if drawn:
        labels = [f"--image {pathlib.Path(args.image).name}", *samples.prompts]
        contact_sheet.contact_sheet([picture, *drawn], labels).save(out / "sheet.png")
    if not samples.complete:
        print(f"imagen-jax: stopped; what is drawn of the pictures is in {out}.")
        return sample.STOPPED
    print(f"{len(drawn)} pictures in {time.time() - started:.0f} s: {out}/sheet.png")
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other."""
    changing = ("mask", "outpaint", "strength", "resample")
    given = [f"--{name}" for name in changing if getattr(args, name) is not None]
    modes = [f"--{name}" for name in ("upscale", "variations") if getattr(args, name)]
    if len(modes) > 1 or (modes and given):
        raise ValueError(
            f"edit: {modes[0]} begins from a small picture and does not go with "
            f"{', '.join([*modes[1:], *given])}; leave one out."
        )


def read(path: str, flag: str):
    """uint8 [H, W, 3] of a picture file, turned as its EXIF says, on white."""
    from imagen_jax.data import pictures

    try:
        return pictures.decode(pathlib.Path(path).read_bytes())
    except pictures.BadExample as error:
        raise ValueError(f"{flag}: {path} cannot be read, {error}.") from error


def shown(pixels):
    """The lightness of a mask's file, uint8 [H, W]; what is transparent is white."""
    from PIL import Image

    return Image.fromarray(pixels).convert("L")


def request_of(model, args: argparse.Namespace, picture, mask):
    """What the flags ask of the cascade."""
    from imagen_jax.cascade import editing

    if args.upscale:
        return editing.to_enlarge(model.cascade, picture, args.size)
    if args.variations:
        return editing.to_vary(model.cascade, picture, args.size)
    room = args.outpaint or (0, 0, 0, 0)
    return editing.to_change(model.cascade, picture, mask, room, args.size)


def tell_size(request, picture, args: argparse.Namespace) -> None:
    """Say at which size the picture is taken, where that is not its own."""
    rows = request.low_res if request.edit is None else request.edit.picture
    room = args.outpaint or (0, 0, 0, 0)
    height = picture.shape[0] + room[1] + room[3]
    width = picture.shape[1] + room[0] + room[2]
    taken = rows.shape[1:3]
    if taken != (height, width):
        print(
            f"The picture of {width} x {height} is taken at {taken[1]} x {taken[0]}, "
            f"for a result of {request.size[1]} x {request.size[0]}."
        )


def record(args: argparse.Namespace, out: pathlib.Path) -> None:
    """Say in settings.json what was changed, and how."""
    from imagen_jax.cascade import picture_files

    path = out / picture_files.SETTINGS
    names = ("image", "mask", "outpaint", "upscale", "variations", "size")
    edit: dict[str, Any] = {name: getattr(args, name) for name in names}
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "edit": edit}, indent=2) + "\n")
