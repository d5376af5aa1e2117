"""The flags by which one process of several finds the others."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of a command that can run as several processes."""
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one process of several, which Cloud TPU, GKE, SLURM or Open MPI tells of",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="of process 0, where nothing tells of the others; with the next two",
    )
    parser.add_argument("--num_processes", type=int, help="of the whole job")
    parser.add_argument("--process_id", type=int, help="this one's number, from 0")


def words(args: argparse.Namespace) -> list[str]:
    """The flags again, for a process that this one starts in its place."""
    told = {
        "--coordinator": args.coordinator,
        "--num_processes": args.num_processes,
        "--process_id": args.process_id,
    }
    found = [f"{flag}={value}" for flag, value in told.items() if value is not None]
    return ["--distributed"] * args.distributed + found


def start(args: argparse.Namespace) -> None:
    """Do what the flags say, before any device is used."""
    from imagen_jax import distributed

    told = (args.coordinator, args.num_processes, args.process_id)
    if args.distributed or any(value is not None for value in told):
        distributed.join(*told)
    else:
        distributed.require_alone()
