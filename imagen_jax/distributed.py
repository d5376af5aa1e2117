"""One process of several: joining the others, and ending together with them.

JAX's coordination service, which lives in process 0, notices a process that has ceased
to send heartbeats and aborts the others from C++ with a page of text; a collective that
lost its peer raises; and a process that ends with an error hangs in JAX's shutdown
until the others arrive there, which they never do. All three become one line and a
quick end.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax._src import distributed as jax_distributed

# After about this long without a sign of life a process counts as dead. JAX's own 100 s
# would let a pod idle for minutes.
HEARTBEAT_SECONDS = 10
# The exit status where another process is to blame; 2 is this one's own error.
LOST_ANOTHER = 3
FAILED = "imagen_jax/failed/"
AGAIN = "Start the job again: it goes on from its last checkpoint."

_handler = None  # what C calls must outlive this module's functions


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Join the other processes of this job, before any device is used.

    Without arguments JAX finds them: on Cloud TPU, GKE, SLURM and Open MPI, or from the
    variable JAX_COORDINATOR_ADDRESS.

    Args:
      coordinator: HOST:PORT of process 0.
      num_processes: of the whole job.
      process_id: this one's number, from 0.

    Raises:
      ValueError: if they are told in part only, or nothing tells of them.
    """
    told = (coordinator, num_processes, process_id)
    if any(t is not None for t in told) and None in told:
        raise ValueError(
            "--coordinator, --num_processes and --process_id: all three are required "
            f"where one is given, got {told}."
        )
    _on_abort(
        f"the processes did not all find each other (coordinator: {coordinator}). "
        "Start all of them within five minutes."
    )
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise ValueError(
            "--distributed: no cluster was found in the environment (Cloud TPU, GKE, "
            "SLURM, Open MPI); start one process without it, or give --coordinator, "
            f"--num_processes and --process_id. ({error})"
        ) from error
    _on_abort(f"another host is gone; the lines above tell which. {AGAIN}")


def require_alone(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to be one of several that do not know each other.

    Raises:
      ValueError: if SLURM or Open MPI has started more than this process.
    """
    for name, launcher in (
        ("SLURM_STEP_NUM_TASKS", "SLURM"),
        ("OMPI_COMM_WORLD_SIZE", "Open MPI"),
    ):
        number = environment.get(name, "1")
        if number.isdigit() and int(number) > 1:
            raise ValueError(
                f"train: {launcher} has started {number} processes ({name}), which "
                "would all write to one workdir. Give --distributed, or start one."
            )


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Around a process's work: an error ends it in one line and without waiting.

    The others see it within HEARTBEAT_SECONDS or so, or in their next collective.
    Alone, errors pass as they are.
    """
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        line, status = _verdict(error)
        if status != LOST_ANOTHER:
            _tell(line)
        _end(line, status)


def _verdict(error: BaseException) -> tuple[str, int]:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return "interrupted.", 130
    if not isinstance(error, jax.errors.JaxRuntimeError) or "RESOURCE_EXH" in text:
        return text, 2
    told = _told()
    if told:
        return f"ended with another: {'; '.join(told)}", LOST_ANOTHER
    reason = f"lost contact to another host, which has probably died ({text[:160]}). "
    return reason + AGAIN, LOST_ANOTHER


def _tell(line: str) -> None:
    """Leave the reason where the others can read it."""
    client: Any = jax_distributed.global_state.client
    with contextlib.suppress(Exception):
        client.key_value_set(f"{FAILED}{jax.process_index()}", line)


def _told() -> list[str]:
    client: Any = jax_distributed.global_state.client
    with contextlib.suppress(Exception):
        there = client.key_value_dir_get(FAILED)
        return [f"host {key.rsplit('/', 1)[1]}: {line}" for key, line in there]
    return []


def _end(line: str, status: int) -> None:
    state = jax_distributed.global_state
    who = f"host {state.process_id} of {state.num_processes}: "
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, f"imagen-jax: error: {who}{line}\n".encode())
    os._exit(status)


def _on_abort(line: str) -> None:
    """Let an abort from C++ end in this line.

    JAX's client knows no other way to hear of a dead process: a Python callback cannot
    take its status (std::bad_cast), and by default it aborts. `signal.signal` would not
    do: its handlers wait for the main thread, which waits for the dead process.
    """
    global _handler

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def handler(number):
        _end(line, LOST_ANOTHER)

    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, type(handler))
    libc.signal(signal.SIGABRT, handler)
    _handler = handler
