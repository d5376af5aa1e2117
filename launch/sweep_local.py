"""Run the runs of a sweep on this machine, so many at a time."""

import collections
import fcntl
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO

import shell
import sweep_results
import sweep_runs
import training_command


class Local:
    """Processes of runs; each run's folder of logs has its log, lock and status.

    The lock is held by the run itself: when a sweep is killed and its runs are not, the
    next sweep waits for them instead of training beside them.
    """

    def __init__(self, logs: str, parallel: int, env: Sequence[str]):
        """Keep logs in `logs`/NAME, and `parallel` runs going."""
        self._logs = pathlib.Path(logs)
        self._parallel = parallel
        self._environment = {**os.environ, **dict(training_command.variables(env))}
        self._active: dict[str, subprocess.Popen] = {}
        self._told_to_stop = False

    def command(self, run: sweep_runs.Run) -> list[str]:
        """The run's command, by the Python that runs this."""
        return [sys.executable, "-m", "imagen_jax", *run.command[1:]]

    def run(self, runs: Sequence[sweep_runs.Run]) -> bool:
        """Run all; whether it was told to stop by SIGTERM or Ctrl-C.

        The runs that go on then are told to save and end, and waited for.
        """
        before = {
            number: signal.signal(number, self._stop)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            waiting = collections.deque(runs)
            while (waiting and not self._told_to_stop) or self._active:
                self._fill(waiting)
                self._collect()
                time.sleep(0.1)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._told_to_stop

    def _fill(self, waiting: collections.deque[sweep_runs.Run]) -> None:
        """Start runs while there is room; those locked by others go to the end."""
        for _ in range(len(waiting)):
            if self._told_to_stop or len(self._active) >= self._parallel:
                return
            run = waiting.popleft()
            lock = self._lock(run)
            if lock is None:
                waiting.append(run)
                continue
            with lock:
                if sweep_results.saved_step(run.workdir) < run.steps:
                    self._start(run, lock)

    def _lock(self, run: sweep_runs.Run) -> IO[str] | None:
        folder = self._logs / run.name
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def _start(self, run: sweep_runs.Run, lock: IO[str]) -> None:
        folder = self._logs / run.name
        (folder / "exit_status").unlink(missing_ok=True)
        command = self.command(run)
        with (folder / "log.txt").open("a") as log:
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            # In a session of its own, Ctrl-C reaches it through us and once.
            self._active[run.name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )
        shell.say(f"{run.name}: started; {folder / 'log.txt'}")

    def _collect(self) -> None:
        for name, process in list(self._active.items()):
            status = process.poll()
            if status is None:
                continue
            del self._active[name]
            folder = self._logs / name
            (folder / "exit_status").write_text(f"{status}\n")
            if status:
                last = (folder / "log.txt").read_text().rstrip().rpartition("\n")[2]
                shell.say(f"{name}: ended with status {status}: {last}")
            else:
                shell.say(f"{name}: ended.")

    def _stop(self, number, frame) -> None:
        self._told_to_stop = True
        for process in self._active.values():
            process.terminate()
