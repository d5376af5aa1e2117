"""How the suite compiles: for eight devices, and quickly rather than well."""

import contextlib
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator

DEVICES = "--xla_force_host_platform_device_count"
# Most of the suite's time is the compiler's; what it compiles runs once.
QUICK = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    # Work for threads, which the suite's own processes leave no core.
    "--xla_cpu_parallel_codegen_split_count=1"
)


def flags(given: str) -> str:
    """XLA's flags for the tests, given those of the environment."""
    if DEVICES in given:  # a worker of pytest-xdist inherits what the first one chose
        return given
    plain = f"{given} {DEVICES}=8".strip()
    return f"{plain} {QUICK}" if understood(f"{plain} {QUICK}") else plain


def for_devices(number: int) -> str:
    """XLA's flags for a process with so many devices, else as this one's."""
    return re.sub(rf"{DEVICES}=\d+", f"{DEVICES}={number}", os.environ["XLA_FLAGS"])


def understood(some: str) -> bool:
    """XLA ends the process on a flag that its version does not have."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": some}
    done = subprocess.run(command, env=environment, capture_output=True)
    return done.returncode == 0


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """A list that grows by a message for each program that is compiled inside."""
    import jax  # Only once its flags are set.

    found = []

    class Watch(logging.Handler):
        def emit(self, record):
            if "XLA compilation" in record.getMessage():
                found.append(record.getMessage())

    logger, watch = logging.getLogger("jax"), Watch()
    logger.addHandler(watch)
    try:
        with jax.log_compiles():
            yield found
    finally:
        logger.removeHandler(watch)
