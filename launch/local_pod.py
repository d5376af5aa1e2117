"""Run one command as several processes on this machine, as a pod runs it on its hosts.

Each process gets a share of the CPU as virtual devices and joins the others through
`jax.distributed`, so that what only happens between hosts (data sharding, collective
saves, deaths, restarts on another number of hosts) can be seen without a pod.

  python launch/local_pod.py --hosts 4 --devices 2 -- imagen-jax train \\
    --config shapes/text --workdir DIR
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

# When one host has failed the others end by themselves, as on a pod; after this they
# are ended.
PATIENCE_SECONDS = 60


def main() -> int:
    """Start the processes and wait for all; the first failure's status."""
    parser = argparse.ArgumentParser(
        description="Run an imagen-jax command as several processes."
    )
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument(
        "--devices", type=int, default=2, help="virtual devices of each host"
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="-- imagen-jax train ..."
    )
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("give the command after --")
    if command[0] == "imagen-jax":  # this Python's, installed or not
        command[:1] = [sys.executable, "-m", "imagen_jax"]

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flag = f"--xla_force_host_platform_device_count={args.devices}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip(),
    }
    hosts = [
        subprocess.Popen(
            [*command, "--coordinator", f"127.0.0.1:{port}",
             "--num_processes", str(args.hosts), "--process_id", str(host)],
            env=environment,
        )
        for host in range(args.hosts)
    ]  # fmt: skip
    print("local_pod: processes", *(p.pid for p in hosts), file=sys.stderr, flush=True)
    # A scheduler tells every host; that one told is enough is the command's business.
    signal.signal(signal.SIGTERM, lambda number, _: tell(hosts, number))
    try:
        return wait(hosts)
    finally:
        for process in hosts:
            process.kill()


def tell(hosts: list[subprocess.Popen], number: int) -> None:
    """Send a signal to the hosts that are left."""
    for process in hosts:
        if process.poll() is None:
            process.send_signal(number)


def wait(hosts: list[subprocess.Popen]) -> int:
    """Wait until all have ended, or a while after a failure; the first failure."""
    first, since, left = 0, None, dict(enumerate(hosts))
    while left and (since is None or time.monotonic() < since + PATIENCE_SECONDS):
        time.sleep(0.1)
        for host, process in list(left.items()):
            status = process.poll()
            if status is None:
                continue
            del left[host]
            if status:
                since = since or time.monotonic()
                first = first or status
                seconds = time.monotonic() - since
                print(
                    f"local_pod: host {host} ended with status {status}, "
                    f"{seconds:.1f} s after the first failure",
                    file=sys.stderr,
                    flush=True,
                )
    for host in left:
        print(f"local_pod: host {host} had to be ended", file=sys.stderr, flush=True)
    return first


if __name__ == "__main__":
    sys.exit(main())
