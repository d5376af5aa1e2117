"""Run one command as several processes on this machine, as a pod runs it on its hosts.

Each process gets a share of the CPU as virtual devices and joins the others through
`jax.distributed`, so that what only happens between hosts (data sharding, collective
saves, restarts on another number of hosts) can be seen without a pod.

  python launch/local_pod.py --processes 2 -- train --config shapes/text --workdir DIR
"""

import argparse
import os
import socket
import subprocess
import sys


def main() -> int:
    """Start the processes, end all when one fails, and return the first failure."""
    parser = argparse.ArgumentParser(
        description="Run an imagen-jax command as several processes."
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--devices", type=int, default=2, help="virtual devices of each process"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- train ...")
    args = parser.parse_args()
    command = [word for word in args.command if word != "--"]
    if not command:
        parser.error("give the imagen-jax command after --")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for i in range(args.processes):
        flags = f"--xla_force_host_platform_device_count={args.devices}"
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
            "IMAGEN_JAX_COORDINATOR": f"127.0.0.1:{port}",
            "IMAGEN_JAX_PROCESSES": str(args.processes),
            "IMAGEN_JAX_PROCESS": str(i),
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "imagen_jax", *command, "--distributed"],
                env=environment,
            )
        )
    try:
        return wait(processes)
    finally:
        for process in processes:
            process.kill()


def wait(processes: list[subprocess.Popen]) -> int:
    """Wait until all have ended well or one has failed."""
    left = list(processes)
    while left:
        for process in list(left):
            try:
                status = process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            if status:
                return status
            left.remove(process)
    return 0


if __name__ == "__main__":
    sys.exit(main())
