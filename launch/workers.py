"""What is done on each machine of a TPU slice, as bash: install, start, look, stop.

A machine runs one thing at a time. Its folder `~/imagen_jax_run` has the script
(`run.sh`), everything it printed (`log`), its process (`pid`) and, once it has ended,
its status (`ended`). The code is in `~/imagen_jax`, its Python in `~/imagen_jax_venv`.
"""

import argparse
import pathlib
import shlex
import subprocess
import tempfile
from collections.abc import Sequence

import shell
import training_command

ARCHIVE = "imagen_jax.tar.gz"
GRACE = 300  # seconds to save in
# Its number alone would not do: after a restart another process may have it.
RUNNING = 'running() { grep -qs run.sh "/proc/$(cat pid 2>/dev/null)/cmdline"; }\n'
LOOK = f"""\
cd ~/imagen_jax_run 2>/dev/null || {{ echo none; exit 0; }}
{RUNNING}\
if running; then echo running
elif [ -f stopped ]; then echo stopped
elif [ -f ended ]; then echo "ended $(cat ended)"
else echo lost; fi
"""
MARK_STOPPED = "mkdir -p ~/imagen_jax_run && touch ~/imagen_jax_run/stopped\n"
STOP = f"""\
cd ~/imagen_jax_run 2>/dev/null || exit 0
{RUNNING}\
running || {{ echo 'nothing runs here'; exit 0; }}
kill -TERM "$(cat pid)"
for second in $(seq {GRACE}); do running || break; sleep 1; done
running && kill -KILL -- "-$(cat pid)"
tail -n 1 log
"""
REFUSE = f"""\
set -e
mkdir -p ~/imagen_jax_run
cd ~/imagen_jax_run
{RUNNING}\
if running; then
  echo 'a command runs here already; --stop it first' >&2
  exit 3
fi
"""
FOLLOW = "tail -n +1 -F ~/imagen_jax_run/log"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where the code comes from."""
    parser.add_argument(
        "--git",
        metavar="URL",
        help="the workers fetch this repository; default: they get the last commit of "
        "this one",
    )
    parser.add_argument(
        "--revision",
        default="HEAD",
        help="the commit, branch or tag that runs (default %(default)s)",
    )


def archive(revision: str) -> tuple[list[str], str]:
    """The command that packs this repository at a revision, and the file it writes."""
    path = str(pathlib.Path(tempfile.gettempdir()) / ARCHIVE)
    root = str(shell.ROOT)
    return ["git", "-C", root, "archive", f"--output={path}", revision], path


def warn_of_changes(git: str | None) -> None:
    """Say that what is not committed does not travel, where this clone does."""
    if git is not None:
        return
    command = ["git", "-C", str(shell.ROOT), "status", "--porcelain"]
    with shell.naming_what_is_missing("git"):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.stdout.strip():
        shell.say("Note: changes that are not committed do not reach the workers.")


def install(git: str | None, revision: str) -> str:
    """Put the code and what it needs on a worker; again only brings it up to date.

    The machines' own Python is older than 3.11, so uv fetches one.
    """
    if git is None:
        code = (
            f"rm -rf imagen_jax && mkdir imagen_jax\ntar -xzf {ARCHIVE} -C imagen_jax\n"
        )
    else:
        code = (
            "[ -d imagen_jax/.git ] || rm -rf imagen_jax\n"
            "git init --quiet imagen_jax\n"
            f"git -C imagen_jax fetch --quiet {shlex.quote(git)} "
            f"{shlex.quote(revision)}\n"
            "git -C imagen_jax checkout --quiet --detach FETCH_HEAD\n"
        )
    return f"""\
{REFUSE}\
cd ~
{code}\
python3 -m pip install --quiet --user uv
[ -d imagen_jax_venv ] || python3 -m uv venv --quiet --python 3.11 imagen_jax_venv
cd imagen_jax
python3 -m uv pip install --quiet --python ~/imagen_jax_venv -e '.[train,seqio,tpu]'
"""


def start(command: Sequence[str], env: Sequence[str]) -> str:
    """Start a command that goes on when the connection ends.

    With status 3 where something runs already.
    """
    stoppable = training_command.stoppable(shlex.join(command))
    return f"""\
{REFUSE}\
rm -f ended stopped
cat > run.sh <<'END_OF_RUN'
cd ~/imagen_jax
export PATH=~/imagen_jax_venv/bin:"$PATH"
{training_command.exports(env)}{stoppable}\
echo "Ended with status $status."
echo "$status" > ~/imagen_jax_run/ended
END_OF_RUN
setsid nohup bash run.sh >> log 2>&1 < /dev/null &
echo $! > pid
"""
