"""A progress bar for drawing, at Python's prompt, in notebooks and in commands."""

import contextlib
import sys
from collections.abc import Iterator

import tqdm

from imagen_jax.cascade.drawing import Moment, Progress


def shown(
    progress: Progress | bool | None,
) -> contextlib.AbstractContextManager[Progress | None]:
    """A context whose value is told of the progress, or None.

    Args:
      progress: the value itself; True for a bar, False for none, None for one where a
        person is at work: at Python's prompt or in a notebook.
    """
    if callable(progress):
        return contextlib.nullcontext(progress)
    if progress is None:
        progress = hasattr(sys, "ps1")  # IPython and its kernels set it too.
    return bar() if progress else contextlib.nullcontext()


@contextlib.contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar as a `progress` callback."""
    with tqdm.tqdm(desc="compiling", unit="step", dynamic_ncols=True) as steps:

        def report(moment: Moment) -> None:
            steps.total = moment.total
            steps.set_description(moment.stage, refresh=False)
            steps.update(moment.done - steps.n)

        yield report
