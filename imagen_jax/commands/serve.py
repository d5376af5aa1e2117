"""`imagen-jax serve`: a page to draw on, in a browser."""

import argparse
import dataclasses
import importlib.util
import pathlib
import socket
import sys

from imagen_jax.commands import sample, sampling_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    sampling_flags.add_model(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine alone); another "
        "needs a token",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="to listen on (default 8000)"
    )
    parser.add_argument(
        "--token",
        help="what the page asks for before it draws; by default none on this machine "
        "alone, else a new one, which is printed",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which the page is reached, beside localhost, addresses and "
        "this machine's own name; may be repeated",
    )
    parser.add_argument(
        "--waiting", type=int, default=8, help="drawings that may wait (default 8)"
    )
    parser.add_argument(
        "--most", type=int, default=8, help="pictures of one drawing (default 8)"
    )
    parser.add_argument(
        "--out",
        help="folder for all that is drawn; by default nothing is written to disk",
    )
    sampling_flags.add_settings(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Serve the page until Ctrl-C."""
    del rest
    if importlib.util.find_spec("aiohttp") is None:
        raise ValueError(
            "serve: the package aiohttp is required; `pip install 'imagen_jax[serve]'`."
        )
    from imagen_jax.serving import app, asking, guard, limits, programs, queue

    if not 1 <= args.port <= 65535:
        raise ValueError(f"--port: must be from 1 to 65535, got {args.port}.")
    token = guard.checked_token(args.token, args.host)
    bounds = limits.Limits(waiting=args.waiting, pictures=args.most)
    keep = keeper(args.out) if args.out else lambda drawing: None
    model = sample.load(args)
    own = model.recipes_with(**sampling_flags.settings_of(args))
    model = dataclasses.replace(model, recipes=own)

    compiled = programs.Programs(model, bounds.programs)

    def draw(asked, progress):
        compiled.make_room(asked)
        return asking.draw(model, asked, progress)

    drawings = queue.Queue(draw, bounds, keep)
    names = {args.host, socket.gethostname(), socket.getfqdn(), *args.allow_host}
    who = guard.Guard(token, frozenset(n.lower() for n in names), args.port)
    try:
        page = app.make(model, drawings, bounds, who)
        app.run(page, args.host, args.port, greeting(args, token))
    finally:
        drawings.close()
    return 0


def greeting(args: argparse.Namespace, token: str) -> str:
    """What is printed when the page can be reached."""
    everywhere = args.host in ("0.0.0.0", "::")
    host = socket.gethostname() if everywhere else args.host
    if ":" in host:
        host = f"[{host}]"
    address = f"http://{host}:{args.port}/"
    lines = [f"Draw at {address}{f'?token={token}' if token else ''} (Ctrl-C ends)"]
    if token:
        lines.append(
            "Who has this address can draw. It is not encrypted: on a network that is "
            "not yours alone, use `ssh -L` (docs/serving.md)."
        )
    return "\n".join(lines)


def keeper(folder: str):
    """A function that writes each drawing to a folder of its own."""
    from imagen_jax.cascade import picture_files

    out = sample.writable(folder)

    def keep(drawing) -> None:
        there = [int(p.name) for p in out.iterdir() if p.name.isdigit()]
        place = out / f"{max(there, default=0) + 1:05d}"
        try:
            picture_files.save(drawing.samples, place)
        except OSError as error:  # What is drawn is on the page all the same.
            print(f"imagen-jax: {pathlib.Path(place)}: {error}", file=sys.stderr)

    return keep
