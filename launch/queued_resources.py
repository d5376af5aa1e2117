"""Run a command on queued TPU resources until it has finished, come what may.

  python launch/queued_resources.py base --zone us-east5-b --accelerator v6e-64 \\
    --spot -- imagen-jax train --config imagen/base_64 --workdir gs://BUCKET/base
  python launch/queued_resources.py base --zone us-east5-b --follow
  python launch/queued_resources.py base --zone us-east5-b --stop

It asks for the resource, waits until it is active, sets up every worker of every slice,
starts the command, and watches. A resource that failed or was taken away is deleted and
asked for again, and the same command goes on from its checkpoint. The script ends with
the command and returns its status. Interrupted, it leaves everything as it is; given
again, it finds the resource and the command and watches on.
"""

import argparse

import accelerators
import cloud_tpu
import shell
import training_command
import watching
import workers


def main() -> int:
    """Read the command line and do it."""
    p = argparse.ArgumentParser(description=__doc__, usage="NAME --zone ZONE [flags]")
    cloud_tpu.add_arguments(p, "queued resource")
    p.add_argument("--slices", type=int, default=1, help="so many slices, one job")
    p.add_argument(
        "--interval", type=float, default=60, help="seconds between two looks"
    )
    p.add_argument(
        "--max_restarts",
        type=int,
        default=3,
        help="starts after failures of the command itself that follow each other",
    )
    p.add_argument(
        "--keep", action="store_true", help="do not delete the resource at the end"
    )
    args = cloud_tpu.parse(p)
    if args.slices < 1 or args.interval < 0 or args.max_restarts < 0:
        p.error("--slices must be positive; --interval, --max_restarts not negative")
    sh = shell.Shell(dry_run=args.dry_run)
    resource = cloud_tpu.QueuedResource(args)
    if not args.command:
        if args.status:
            sh.run(resource.state())
        cloud_tpu.look_afterwards(sh, resource, args)
        return 0
    slice_ = accelerators.find(args.accelerator)
    command = training_command.checked(
        args.command, processes=slice_.hosts * args.slices, slices=args.slices
    )
    workers.warn_of_changes(args.git)
    if args.dry_run:
        shell.say("Dry run: as if it were given at once and the command finished.")
    return watching.Watch(sh, resource, args, slice_, command).run()


if __name__ == "__main__":
    shell.main("queued_resources.py", main)
