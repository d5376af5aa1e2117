"""Run the commands of a launch script, or print them as a shell takes them.

A dry run prints each command, quoted, on standard output and nothing else there: given
to bash, that does what the script would have done.
"""

import contextlib
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
END = "END_OF_INPUT"
INSTALL = {
    "gcloud": "install the Google Cloud CLI and run `gcloud init`",
    "kubectl": "run `gcloud components install kubectl`",
    "sbatch": "run this on a login node of the SLURM cluster",
}


class LaunchError(ValueError):
    """What the user has to mend, in one line."""


class MissingProgram(LaunchError):
    """A program is not installed: trying again is of no use."""


class Shell:
    """Runs commands one after the other; in a dry run prints them instead."""

    def __init__(self, *, dry_run: bool):
        self.dry_run = dry_run

    def run(self, argv: Sequence[str], *, stdin: str | None = None) -> None:
        """Run a command to its end, its output going where ours goes.

        Raises:
          LaunchError: when the program is missing or ends with another status than 0.
        """
        status = self.status(argv, stdin=stdin)
        if status:
            raise failed(argv, status)

    def status(self, argv: Sequence[str], *, stdin: str | None = None) -> int:
        """Run a command to its end and return its status; 0 in a dry run."""
        if self.dry_run:
            print(written(argv, stdin), flush=True)
            return 0
        with naming_what_is_missing(argv[0]):
            return subprocess.run(argv, input=stdin, text=True).returncode

    def output(self, argv: Sequence[str], *, dry: str) -> str:
        """Run a command and return its standard output, stripped; `dry` in a dry run.

        Raises:
          LaunchError: as `run`.
        """
        if self.dry_run:
            print(written(argv), flush=True)
            return dry
        with naming_what_is_missing(argv[0]):
            done = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise failed(argv, done.returncode)
        return done.stdout.strip()


def written(argv: Sequence[str], stdin: str | None = None) -> str:
    """A command as it is typed; what it reads follows as a here-document."""
    line = shlex.join(argv)
    if stdin is None:
        return line
    if not stdin.endswith("\n") or END in stdin.splitlines():
        raise LaunchError(f"the input of {argv[0]} must be lines other than {END}.")
    return f"{line} <<'{END}'\n{stdin}{END}"


def failed(argv: Sequence[str], status: int) -> LaunchError:
    """The error of a command that ended badly, after its own message."""
    words = []
    for word in argv:
        if word.startswith("-"):
            break
        words.append(word)
    return LaunchError(
        f"`{shlex.join(words)}` ended with status {status}; its own words are above."
    )


@contextlib.contextmanager
def naming_what_is_missing(program: str) -> Iterator[None]:
    """Turn a program that is not installed into one clear line."""
    try:
        yield
    except FileNotFoundError:
        hint = INSTALL.get(program, "install it")
        raise MissingProgram(f"{program} is not on the PATH; {hint}.") from None


def say(text: str) -> None:
    """Tell the user something, on standard error."""
    print(text, file=sys.stderr, flush=True)


def main(script: str, run: Callable[[], int | None]) -> None:
    """Run a script's main function; what the user can mend is one line, status 2."""
    try:
        status = run() or 0
    except LaunchError as error:
        say(f"{script}: error: {error}")
        status = 2
    except KeyboardInterrupt:
        say(f"{script}: interrupted.")
        status = 130
    sys.exit(status)
