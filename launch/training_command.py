"""The command `imagen-jax ...` that a launch script brings to its machines."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from shell import LaunchError

STOPPED = 143  # what a shell reports of a command that SIGTERM ended


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read a script's command line: flags, then `-- imagen-jax ...` as `command`.

    Raises:
      LaunchError: when an `--env` is not NAME=VALUE.
    """
    parser.usage = f"%(prog)s {parser.usage or '[flags]'} -- imagen-jax COMMAND ..."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable of the command; may be repeated",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print what would run, as a shell takes it, and run nothing",
    )
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:at])
    args.command = words[at + 1 :]
    variables(args.env)
    return args


def checked(words: Sequence[str], *, processes: int, slices: int = 1) -> list[str]:
    """The command as so many processes need it, in so many slices.

    Training in several processes gets `--distributed`, with which they find each other.

    Raises:
      LaunchError: when it is not `imagen-jax COMMAND ...`, when `--workdir` is a place
        that only one machine sees or that is lost with it, or when the config's mesh
        does not know of the slices.
    """
    words = list(words)
    if len(words) < 2 or words[0] != "imagen-jax":
        got = repr(shlex.join(words)) if words else "nothing"
        raise LaunchError(
            f"the command after -- must be `imagen-jax COMMAND ...`, got {got}; for "
            "example -- imagen-jax train --config imagen/base_64 --workdir "
            "gs://BUCKET/base"
        )
    workdir = flag(words, "--workdir")
    if workdir is not None and "://" not in workdir and not workdir.startswith("/"):
        raise LaunchError(
            "--workdir must be a bucket (gs://BUCKET/NAME) or the absolute path of a "
            f"folder that all machines share, got {workdir!r}."
        )
    if words[1] != "train":
        return words
    if slices > 1 and flag(words, "--config.mesh.slices") != str(slices):
        raise LaunchError(
            f"--slices {slices}: the command must say --config.mesh.slices={slices}, "
            "so that only the data axis crosses the network between slices."
        )
    if processes > 1 and "--distributed" not in words:
        words.append("--distributed")
    return words


def flag(words: Sequence[str], name: str) -> str | None:
    """The value of `--name=value` or `--name value` in a command; the last counts."""
    value = None
    for i, word in enumerate(words):
        if word == name:
            value = words[i + 1] if i + 1 < len(words) else ""
        elif word.startswith(f"{name}="):
            value = word.removeprefix(f"{name}=")
    return value


def variables(settings: Sequence[str]) -> list[tuple[str, str]]:
    """The names and values of `--env NAME=VALUE` flags.

    Raises:
      LaunchError: when one is not of that form.
    """
    pairs = []
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise LaunchError(f"--env must be NAME=VALUE, got {setting!r}.")
        pairs.append((name, value))
    return pairs


def exports(settings: Sequence[str]) -> str:
    """The same as lines of bash."""
    pairs = variables(settings)
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in pairs)


def stoppable(command: str) -> str:
    """Bash that runs a command, passes SIGTERM on to it and leaves its `$status`.

    A run that SIGTERM stopped has saved and ends with 0, as one that has finished does.
    Whoever starts it again must know which; after SIGTERM the 0 becomes 143.
    """
    return f"""\
stopped= child=
trap 'stopped=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
{command} &
child=$!
[ -z "$stopped" ] || kill -TERM "$child"
while :; do  # a signal interrupts wait
  wait "$child"
  status=$?
  kill -0 "$child" 2>/dev/null || break
done
if [ -n "$stopped" ] && [ "$status" -eq 0 ]; then status={STOPPED}; fi
"""
