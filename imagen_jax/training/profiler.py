"""A trace of some steps, for TensorBoard's profile page or xprof."""

import contextlib
import importlib.util
import pathlib
import shutil
import tempfile
from typing import Any

import jax
from etils import epath


class Window:
    """Traces the steps from `first` on. Use as a context manager around the run.

    The trace goes to `profile/` in the workdir, the first process's alone: the others
    do the same work.
    """

    def __init__(self, workdir: str, *, first: int, steps: int):
        """Trace `steps` steps from step `first` on; none where it is 0.

        Raises:
          ValueError: where libtpu is loaded but has no TPU: its profiler crashes.
        """
        if first:
            check(jax.config.values["jax_platforms"], jax.default_backend())
        self._workdir, self._first, self._last = workdir, first, first + steps - 1
        self._running = False
        # The profiler is C++ and knows no gs://.
        self._remote = "://" in workdir
        self._folder = str(epath.Path(workdir) / "profile")

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *exception):
        if self._running:
            self._stop()

    def at(self, step: int, before: Any) -> None:
        """Begin or end, where a step is about to begin.

        Args:
          step: its number.
          before: the state that it begins with, which is waited for at both ends.
        """
        if not self._first or jax.process_index():
            return
        if self._running and step > self._last:
            jax.block_until_ready(before)
            self._stop()
        if not self._running and step == self._first:
            jax.block_until_ready(before)
            if self._remote:
                self._folder = tempfile.mkdtemp()
            jax.profiler.start_trace(self._folder)
            self._running = True

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False
        if self._remote:
            with contextlib.ExitStack() as stack:
                stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
                copy(pathlib.Path(self._folder), epath.Path(self._workdir) / "profile")


def check(asked: str | None, backend: str) -> None:
    """Refuse to profile where JAX has looked for a TPU and found none."""
    there = importlib.util.find_spec("libtpu") is not None
    if not asked and backend != "tpu" and there:
        raise ValueError(
            "training.profile_from: libtpu is installed and finds no TPU; it would end"
            f" the process where a profile begins. Set JAX_PLATFORMS={backend}."
        )


def copy(source: pathlib.Path, target: epath.Path) -> None:
    """Copy a folder's files to another place, an object store among them."""
    for path in source.rglob("*"):
        if path.is_file():
            to = target / str(path.relative_to(source))
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
