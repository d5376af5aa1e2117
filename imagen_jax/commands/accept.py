"""`imagen-jax accept`: twenty minutes that tell whether this machine is up to it."""

import argparse
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

from etils import epath

from imagen_jax.commands import joining


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "--out",
        required=True,
        help="folder for acceptance.json, acceptance.html and what they are made of; "
        "parts that passed there are not run again",
    )
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="limit of one part (default 20)"
    )
    parser.add_argument(
        "--shared",
        help="on several hosts: a new folder that all of them see, also gs://..., for "
        "the checkpoints of the run that is killed; --out is then each host's own",
    )
    joining.add_arguments(parser)
    parser.add_argument("--part", help=argparse.SUPPRESS)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Run every part and write the page; status 1 if any failed."""
    del rest
    from imagen_jax.acceptance import page, parts

    folder = pathlib.Path(args.out)
    words = joining.words(args)
    if words and not args.shared:
        raise ValueError(
            "accept: --shared is required on several hosts, got none; give a new "
            "folder that all of them see, such as gs://BUCKET/accept."
        )
    if args.part:
        if args.part not in parts.APART:
            joining.start(args)
        place = parts.Place(folder, epath.Path(args.shared or folder), tuple(words))
        told = parts.PARTS[args.part](place)
        (folder / f"{args.part}.json").write_text(json.dumps(told, indent=1))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in parts.PARTS:
        results[name] = result = finished(folder, name) or attempt(folder, name, args)
        verdict = "passed" if result["passed"] else f"FAILED: {why(result)}"
        print(f"{name}: {verdict}", flush=True)
        (folder / "acceptance.json").write_text(json.dumps(results, indent=1) + "\n")
        (folder / "acceptance.html").write_text(page.page(results, parts.SHEET))
    print(f"The page: {folder / 'acceptance.html'}")
    return 0 if all(result["passed"] for result in results.values()) else 1


def finished(folder: pathlib.Path, name: str) -> dict[str, Any] | None:
    """The result of a part that passed here before."""
    path = folder / f"{name}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    return result if result.get("passed") else None


def attempt(
    folder: pathlib.Path, name: str, args: argparse.Namespace
) -> dict[str, Any]:
    """Run one part in a process of its own, which gives the devices back at its end."""
    command = [sys.executable, "-m", "imagen_jax", "accept", "--out", args.out]
    command += [f"--shared={args.shared}"] * bool(args.shared) + joining.words(args)
    (folder / f"{name}.json").unlink(missing_ok=True)
    log = folder / f"{name}.log"
    start = time.monotonic()
    with log.open("w") as file:
        try:
            status = subprocess.run(
                [*command, "--part", name],
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=60 * args.minutes,
            ).returncode
        except subprocess.TimeoutExpired:
            error = f"it took longer than {args.minutes:g} minutes; see {log}"
            return {"passed": False, "error": error}
    path = folder / f"{name}.json"
    if status or not path.exists():
        lines = [line for line in log.read_text().splitlines() if line.strip()]
        error = f"it ended with status {status}: {lines[-1] if lines else 'no output'}"
        return {"passed": False, "error": f"{error}; see {log}"}
    result = json.loads(path.read_text())
    result["minutes"] = (time.monotonic() - start) / 60
    path.write_text(json.dumps(result, indent=1))
    return result


def why(result: dict[str, Any]) -> str:
    """What is wrong with a part's result, in a line."""
    return result.get("error") or json.dumps(result)
