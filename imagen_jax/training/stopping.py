"""When a run ends before its last step: it is told to, or its time is over."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator

import jax


@contextlib.contextmanager
def early(
    max_minutes: float | None, preempted: Callable[[int], bool]
) -> Iterator[Callable[[int], bool]]:
    """A question to ask after each step: must the run be saved and end?

    Alone, a first SIGTERM or SIGINT is the answer, and a second one ends the process.
    With several processes JAX's preemption service takes SIGTERM and sees to it that
    all of them stop at the same step; a flag of one would leave the others waiting.

    Args:
      max_minutes: from now on; alone only, for the clocks of several differ.
      preempted: step -> whether any process of the job has been told to go.
    """
    if jax.process_count() > 1:
        yield preempted
        return
    deadline = time.monotonic() + 60 * (max_minutes or math.inf)
    with _signals() as told:
        yield lambda step: bool(told) or time.monotonic() > deadline


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def note(number, frame):
        told.append(number)
        signal.signal(number, before[number])

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
