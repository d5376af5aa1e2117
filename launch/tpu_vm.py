"""Create a Cloud TPU VM, set up every worker, and run a command on all of them.

  python launch/tpu_vm.py base --zone us-central2-b --accelerator v4-32 --create -- \\
    imagen-jax train --config imagen/base_64 --workdir gs://BUCKET/base
  python launch/tpu_vm.py base --zone us-central2-b --follow
  python launch/tpu_vm.py base --zone us-central2-b --stop

The command goes on when this script or the connection ends. Given again after --stop
or a restart of the machines, it goes on from its last checkpoint. Machines that may be
taken away are better had through launch/queued_resources.py, which gets new ones.
"""

import argparse

import accelerators
import cloud_tpu
import shell
import training_command
import workers


def main() -> None:
    """Read the command line and do it."""
    p = argparse.ArgumentParser(description=__doc__, usage="NAME --zone ZONE [flags]")
    cloud_tpu.add_arguments(p, "TPU VM")
    p.add_argument("--create", action="store_true", help="create the TPU VM first")
    args = cloud_tpu.parse(p)
    sh = shell.Shell(dry_run=args.dry_run)
    machines = cloud_tpu.Machines(args)
    if not args.command:
        cloud_tpu.look_afterwards(sh, machines, args)
        return
    slice_ = accelerators.find(args.accelerator)
    command = training_command.checked(args.command, processes=slice_.hosts)
    workers.warn_of_changes(args.git)
    if args.create:
        sh.run(machines.create(slice_))
    cloud_tpu.set_up_and_start(sh, machines, args, command)


if __name__ == "__main__":
    shell.main("tpu_vm.py", main)
