"""Says when a run stands still, and where; it ends nothing."""

import faulthandler
import statistics
import sys
import tempfile
import threading
import time
from collections import deque

import jax
from etils import epath

from imagen_jax.training import clock

# So many median steps without an end are too long, where that is more than the seconds
# asked for.
STEPS = 20
WAITING = {
    "steps": "for the devices: a collective waits for another host, or a step is slow",
    "data": "for a batch",
    "checkpoints": "for a checkpoint to be written",
    "start": "for the first step: restoring or compiling",
    "other": "for samples, an evaluation or the log",
}


class Watchdog:
    """A thread that watches whether steps end. Use as a context manager.

    When none has ended for `seconds`, and for STEPS median steps, it prints one line
    with the last step and what this host waits for, and writes every thread's stack to
    `stuck/host_N.txt` in the workdir; again whenever the time has doubled.
    """

    def __init__(self, time_of_run: clock.Clock, workdir: str, *, seconds: float):
        """Watch a run; with `seconds` 0, do not."""
        self._clock, self._seconds = time_of_run, seconds
        self._path = epath.Path(workdir) / "stuck" / f"host_{jax.process_index()}.txt"
        self._lasted: deque[float] = deque(maxlen=101)
        self._step, self._ended = 0, time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            self._thread.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        if self.running:
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def ended(self, step: int) -> None:
        """A step has ended on the devices."""
        now = time.monotonic()
        if self._step:  # the first one compiles
            self._lasted.append(now - self._ended)
        self._step, self._ended = step, now

    def _watch(self) -> None:
        told, ended = 0.0, self._ended
        while not self._over.wait(min(self._seconds / 8, 5.0)):
            if ended != self._ended:
                told, ended = 0.0, self._ended
            passed = time.monotonic() - ended
            if passed > max(self.patience(), 2 * told):
                told = passed
                self._tell(passed)

    def patience(self) -> float:
        """Seconds that the step under way may take before it counts as stuck."""
        return max(self._seconds, STEPS * self._usual())

    def _usual(self) -> float:
        return statistics.median(tuple(self._lasted)) if self._lasted else 0.0

    def _tell(self, passed: float) -> None:
        kind, since = self._clock.kind, time.monotonic() - self._clock.since
        print(
            f"Watchdog: host {jax.process_index()} of {jax.process_count()}: no step "
            f"has ended for {passed:.0f} s; the last was {self._step} (a step takes "
            f"{self._usual():.3g} s). It has waited {since:.0f} s {WAITING[kind]}. "
            f"Stacks: {self._path}",
            file=sys.stderr,
            flush=True,
        )
        with tempfile.TemporaryFile("w+") as file:
            faulthandler.dump_traceback(file=file)
            file.seek(0)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(file.read())
            except OSError as error:
                print(f"Watchdog: {self._path}: {error}", file=sys.stderr)
