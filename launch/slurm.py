"""Run a command on GPUs of a SLURM cluster, one process a GPU.

  python launch/slurm.py base --nodes 4 --gpus_per_node 8 --time 24:00:00 -- \\
    imagen-jax train --config imagen/base_64 --workdir /shared/base

Before the time limit the job saves its state, and goes back into the queue; so it does
when a node fails, when a more important job takes its place, or when the command fails
after half an hour or more. It then goes on from its checkpoint, until the command has
finished. A job waits for another of its name, so that two never write one workdir.
`scancel --name=base` ends it for good.
"""

import argparse
import shlex

import shell
import training_command

SOUND = 1800  # a job that ran for so many seconds is worth another turn


def arguments() -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, usage="NAME [flags]")
    p.add_argument("name", help="the job's name")
    p.add_argument("--nodes", type=int, default=1)
    p.add_argument("--gpus_per_node", type=int, default=8)
    p.add_argument("--cpus_per_gpu", type=int, default=8)
    p.add_argument("--time", default="24:00:00", help="limit of one turn")
    p.add_argument("--partition")
    p.add_argument("--account")
    p.add_argument("--qos")
    p.add_argument(
        "--save_seconds", type=int, default=120, help="to save in, before the limit"
    )
    p.add_argument(
        "--log", default="%x-%j.log", help="%%x is the name, %%j the job's number"
    )
    p.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="FLAG",
        help="another flag of sbatch, such as --sbatch=--mem=0; may be repeated",
    )
    p.add_argument(
        "--venv", metavar="FOLDER", help="a virtual environment with imagen-jax"
    )
    p.add_argument(
        "--container", metavar="IMAGE", help="run in this image (pyxis and enroot)"
    )
    p.add_argument(
        "--mounts", metavar="SOURCE:TARGET,...", help="folders the container sees"
    )
    args = training_command.parse(p)
    if not args.command:
        p.error("give a command after --")
    if args.venv and args.container:
        p.error("give --venv or --container, not both")
    if args.mounts and not args.container:
        p.error("--mounts is for --container")
    for name in ("nodes", "gpus_per_node", "cpus_per_gpu", "save_seconds"):
        if getattr(args, name) < 1:
            p.error(f"--{name} must be positive")
    return args


def batch_script(args: argparse.Namespace, command: list[str]) -> str:
    """What sbatch takes.

    A process sees all GPUs of its node, and jax.distributed gives it the one of its
    number there: --gpus-per-task would hide the others and confuse it. The signal
    before the limit is not SIGTERM, which scancel sends: only the first requeues.
    """
    flags = [
        f"--job-name={args.name}",
        f"--nodes={args.nodes}",
        f"--ntasks-per-node={args.gpus_per_node}",
        f"--gpus-per-node={args.gpus_per_node}",
        f"--cpus-per-task={args.cpus_per_gpu}",
        f"--time={args.time}",
        f"--signal=B:USR1@{args.save_seconds}",
        "--requeue",
        "--dependency=singleton",
        f"--output={args.log}",
        "--open-mode=append",
        *(
            f"--{name}={getattr(args, name)}"
            for name in ("partition", "account", "qos")
            if getattr(args, name)
        ),
        *args.sbatch,
    ]
    for flag in flags:
        if not flag.startswith("--") or any(c.isspace() or c in "'\"" for c in flag):
            raise shell.LaunchError(
                f"a flag of sbatch must be --NAME=VALUE without spaces, got {flag!r}."
            )
    srun = [
        "srun",
        f"--cpus-per-task={args.cpus_per_gpu}",  # not taken from sbatch since 22.05
        "--kill-on-bad-exit=1",
        *([f"--container-image={args.container}"] if args.container else []),
        *([f"--container-mounts={args.mounts}"] if args.mounts else []),
        *command,
    ]
    path = (
        f'export PATH={shlex.quote(f"{args.venv}/bin")}:"$PATH"\n' if args.venv else ""
    )
    return f"""\
#!/bin/bash
{"".join(f"#SBATCH {flag}{chr(10)}" for flag in flags)}\
{path}{training_command.exports(args.env)}\
requeue=
trap 'requeue=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' USR1
{training_command.stoppable(shlex.join(srun))}\
# A node that failed shows as a failure of the command, long before SLURM knows.
if [ -z "$stopped" ] && [ "$status" -ne 0 ] && [ "$SECONDS" -ge {SOUND} ]; then
  requeue=yes
fi
if [ -n "$requeue" ]; then exec scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
"""


def main() -> None:
    """Read the command line and do it."""
    args = arguments()
    processes = args.nodes * args.gpus_per_node
    command = training_command.checked(args.command, processes=processes)
    script = batch_script(args, command)
    shell.Shell(dry_run=args.dry_run).run(["sbatch"], stdin=script)


if __name__ == "__main__":
    shell.main("slurm.py", main)
