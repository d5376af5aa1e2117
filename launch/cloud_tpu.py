"""The gcloud commands for TPU VMs and for queued resources, and their flags."""

import argparse

import accelerators
import shell
import training_command
import workers


def add_arguments(p: argparse.ArgumentParser, what: str) -> None:
    """Declare what both kinds have: place, machines, code, and looking afterwards."""
    p.add_argument("name", help=f"the {what}'s name")
    p.add_argument("--zone", required=True)
    p.add_argument("--project", help="default: that of `gcloud config`")
    p.add_argument(
        "--accelerator", metavar="TYPE", help="a slice, such as v4-32 or v5litepod-16"
    )
    p.add_argument(
        "--runtime_version", help="software of its machines; default: by its kind"
    )
    price = p.add_mutually_exclusive_group()
    price.add_argument("--spot", action="store_true", help="cheaper, may be taken away")
    price.add_argument("--reserved", action="store_true", help="from a reservation")
    p.add_argument(
        "--create_flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="another flag of `gcloud ... create`, such as --create_flag=--network=n; "
        "may be repeated",
    )
    workers.add_arguments(p)
    later = p.add_argument_group("afterwards, without a command")
    later = later.add_mutually_exclusive_group()
    later.add_argument(
        "--follow", action="store_true", help="show the first worker's log as it grows"
    )
    later.add_argument(
        "--status", action="store_true", help="tell what each worker does"
    )
    later.add_argument(
        "--stop", action="store_true", help="let the command save its state and end"
    )
    later.add_argument("--delete", action="store_true", help=f"delete the {what}")


def parse(p: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line: either a command, or a look at one that was started."""
    args = training_command.parse(p)
    later = args.follow or args.status or args.stop or args.delete
    if bool(args.command) == bool(later):
        p.error("give a command after --, or --follow, --status, --stop or --delete")
    if args.command and not args.accelerator:
        p.error("--accelerator is needed to start a command")
    return args


class Machines:
    """The commands for all machines of one TPU VM."""

    kind = "tpu-vm"
    runtime_flag = "--version"

    def __init__(self, args: argparse.Namespace):
        self.name: str = args.name
        self._args = args
        self._place = [f"--zone={args.zone}"]
        if args.project:
            self._place.append(f"--project={args.project}")

    def create(self, slice_: accelerators.Slice) -> list[str]:
        """Ask for the machines."""
        args = self._args
        return [
            *self.gcloud("create", self.name),
            *self.nodes(),
            f"--accelerator-type={slice_.name}",
            f"{self.runtime_flag}={args.runtime_version or slice_.generation.runtime}",
            *(["--spot"] if args.spot else []),
            *(["--reserved"] if args.reserved else []),
            *args.create_flag,
        ]

    def nodes(self) -> list[str]:
        """Flags of `create` that say which slices there will be."""
        return []

    def delete(self) -> list[str]:
        """Delete the machines, without asking, and wait until they are gone."""
        return [*self.gcloud("delete", self.name), "--quiet"]

    def copy(self, file: str) -> list[str]:
        """Copy a file to every worker's home folder."""
        target = f"{self.name}:{workers.ARCHIVE}"
        return [*self.gcloud("scp", file, target), *self.which("all")]

    def on(self, which: str, script: str) -> list[str]:
        """Run a script on the first worker ("0") or on "all"."""
        return [
            *self.gcloud("ssh", self.name),
            *self.which(which),
            f"--command={script}",
        ]

    def which(self, which: str) -> list[str]:
        """Flags that choose the first worker ("0") or "all"."""
        return [f"--worker={which}"]

    def gcloud(self, verb: str, *words: str) -> list[str]:
        """A command for this kind of machines."""
        return ["gcloud", "compute", "tpus", self.kind, verb, *words, *self._place]


class QueuedResource(Machines):
    """The commands for all machines of all slices of one queued resource."""

    kind = "queued-resources"
    runtime_flag = "--runtime-version"

    def nodes(self) -> list[str]:
        """One slice has an id, several have a count and a prefix."""
        if self._args.slices == 1:
            return [f"--node-id={self.name}"]
        return [f"--node-count={self._args.slices}", f"--node-prefix={self.name}"]

    def delete(self) -> list[str]:
        """Delete it with its machines, without asking, and wait until it is gone."""
        return [*super().delete(), "--force"]

    def which(self, which: str) -> list[str]:
        """The first worker of the first slice, or all of all."""
        return [f"--node={which}", *super().which(which)]

    def state(self) -> list[str]:
        """Print its state, or nothing where there is none; `describe` would fail."""
        return [
            *self.gcloud("list"),
            f"--filter=name ~ /queuedResources/{self.name}$",
            "--format=value(state.state)",
        ]


def set_up_and_start(
    sh: shell.Shell, machines: Machines, args: argparse.Namespace, command: list[str]
) -> None:
    """Bring code and Python to all workers, then start the command on all of them."""
    if args.git is None:
        pack, file = workers.archive(args.revision)
        sh.run(pack)
        sh.run(machines.copy(file))
    sh.run(machines.on("all", workers.install(args.git, args.revision)))
    sh.run(machines.on("all", workers.start(command, args.env)))


def look_afterwards(
    sh: shell.Shell, machines: Machines, args: argparse.Namespace
) -> None:
    """Do what `--follow`, `--status`, `--stop` or `--delete` ask for."""
    if args.follow:
        sh.run(machines.on("0", workers.FOLLOW))
    if args.status:
        sh.run(machines.on("all", workers.LOOK))
    if args.stop:
        sh.run(machines.on("all", workers.MARK_STOPPED + workers.STOP))
    if args.delete:
        sh.run(machines.delete())
