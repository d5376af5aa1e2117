"""Drawings in a queue: one at a time on the devices, few waiting, all cancellable."""

import collections
import dataclasses
import enum
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

import numpy as np

from imagen_jax.cascade.drawing import Moment, Progress, Stop
from imagen_jax.cascade.samples import Samples
from imagen_jax.serving.asking import Asked
from imagen_jax.serving.limits import Limits

LONGEST = 500  # Characters of an error; XLA's can fill a screen.


class State(enum.StrEnum):
    """Where a drawing stands."""

    WAITING = "waiting"
    DRAWING = "drawing"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in (State.WAITING, State.DRAWING)


class Full(Exception):
    """Too many drawings wait."""


@dataclasses.dataclass(frozen=True)
class Look:
    """A picture in the making: its stage, its pixels, and since which version."""

    stage: str
    pixels: np.ndarray
    version: int


@dataclasses.dataclass(eq=False)
class Drawing:
    """One drawing in the queue. Only the queue changes it, under its lock.

    Attributes:
      asked: what is drawn.
      unknown: words of it that the model's training never held.
      id: a name that cannot be guessed; who knows it may see and cancel the drawing.
      state: where it stands.
      version: grows with every change.
      place: how many are before it.
      stage, step, steps: of the present chunk of pictures.
      done, total: steps of the whole drawing; 0 until the first are made.
      looks: the pictures in the making, by their places.
      error: what went wrong, in one line.
      samples: what is drawn, after the end.
      began, seconds: when drawing began on the monotonic clock, and how long it took.
    """

    asked: Asked
    unknown: Sequence[str] = ()
    id: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = State.WAITING
    version: int = 0
    place: int = 0
    stage: str = ""
    step: int = 0
    steps: int = 0
    done: int = 0
    total: int = 0
    looks: dict[int, Look] = dataclasses.field(default_factory=dict)
    error: str = ""
    samples: Samples | None = None
    began: float = 0.0
    seconds: float = 0.0

    @property
    def bytes(self) -> int:
        """Of its finished pictures."""
        return sum(stage.nbytes for stage in self.samples.stages) if self.samples else 0


class Queue:
    """Draws in a thread of its own, in the order of asking.

    Args:
      draw: draws what is asked; given a `progress` callback that may raise `Stop`.
      limits: how many wait, and how much is kept.
      finished: called in that thread with each drawing that holds pictures at its end.
    """

    def __init__(
        self,
        draw: Callable[[Asked, Progress], Samples],
        limits: Limits,
        finished: Callable[[Drawing], None] = lambda drawing: None,
    ):
        self._draw, self._limits, self._finished = draw, limits, finished
        self._changed = threading.Condition()
        self._waiting: collections.deque[Drawing] = collections.deque()
        self._drawings: dict[str, Drawing] = {}
        self._cancelled: set[str] = set()
        self._present: Drawing | None = None
        self._closed = False
        # Called after every change, in whichever thread made it.
        self.listener: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._work, name="draw", daemon=True)
        self._thread.start()

    def put(self, asked: Asked, unknown: Sequence[str] = ()) -> Drawing:
        """Ask for a drawing.

        Raises:
          Full: if as many wait as may.
        """
        with self._changed:
            busy = self._present is not None
            if busy and len(self._waiting) >= self._limits.waiting:
                raise Full(
                    f"The queue is full: {len(self._waiting)} drawings wait. Try again "
                    "when one of them is done, or cancel one of yours."
                )
            drawing = Drawing(asked, unknown)
            self._drawings[drawing.id] = drawing
            if busy:
                self._waiting.append(drawing)
                self._renumber()
            else:
                self._begin(drawing)
        self.listener()
        return drawing

    def look(self, name: str) -> Drawing | None:
        """A copy of a drawing as it stands; None if there is none, or none any more."""
        with self._changed:
            drawing = self._drawings.get(name)
            if drawing is None:
                return None
            return dataclasses.replace(drawing, looks=dict(drawing.looks))

    def cancel(self, name: str) -> bool:
        """End a drawing: at once if it waits, else after the steps being made.

        Returns:
          Whether there was anything to end.
        """
        with self._changed:
            drawing = self._drawings.get(name)
            if drawing is None or drawing.state.ended:
                return False
            if drawing.state is State.WAITING:
                self._waiting.remove(drawing)
                self._end(drawing, State.CANCELLED)
                self._renumber()
                self._forget()
            else:
                self._cancelled.add(name)
        self.listener()
        return True

    def close(self, timeout: float = 10.0) -> None:
        """End all drawings; those that wait are gone, of the present one is kept."""
        with self._changed:
            self._closed = True
            while self._waiting:
                self._end(self._waiting.popleft(), State.CANCELLED)
            if self._present is not None:
                self._cancelled.add(self._present.id)
            self._changed.notify_all()
        self.listener()
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._present)
                drawing = self._present
                if drawing is None:
                    return
            state, error, samples = self._drawn(drawing)
            with self._changed:
                drawing.samples, drawing.error = samples, error
                self._cancelled.discard(drawing.id)
                self._present = None
                self._end(drawing, state)
                if self._waiting:
                    self._begin(self._waiting.popleft())
                self._renumber()
                self._forget()
            self.listener()

    def _drawn(self, drawing: Drawing) -> tuple[State, str, Samples | None]:
        samples = None
        try:
            samples = self._draw(drawing.asked, self._progress(drawing))
            if samples.stages:
                self._finished(dataclasses.replace(drawing, samples=samples))
        except (ValueError, RuntimeError, OSError) as error:
            return State.FAILED, " ".join(str(error).split())[:LONGEST], samples
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return State.FAILED, "The server failed; its log tells more.", samples
        return State.DONE if samples.complete else State.CANCELLED, "", samples

    def _progress(self, drawing: Drawing) -> Progress:
        def report(moment: Moment) -> None:
            pixels = moment.pictures()
            with self._changed:
                if drawing.id in self._cancelled:
                    raise Stop
                drawing.version += 1
                drawing.stage = moment.stage
                drawing.step, drawing.steps = moment.step, moment.steps
                drawing.done, drawing.total = moment.done, moment.total
                for row, picture in zip(moment.rows, pixels, strict=True):
                    drawing.looks[row] = Look(moment.stage, picture, drawing.version)
            self.listener()

        return report

    def _begin(self, drawing: Drawing) -> None:
        self._present = drawing
        drawing.state, drawing.began, drawing.place = State.DRAWING, time.monotonic(), 0
        drawing.version += 1
        self._changed.notify_all()

    def _end(self, drawing: Drawing, state: State) -> None:
        drawing.state = state
        drawing.version += 1
        # What was sent is of no more use, and may be large.
        drawing.asked = dataclasses.replace(drawing.asked, picture=None, mask=None)
        drawing.looks = {}
        self._changed.notify_all()
        if drawing.began:
            drawing.seconds = time.monotonic() - drawing.began

    def _renumber(self) -> None:
        for place, drawing in enumerate(self._waiting, 1):
            if drawing.place != place:
                drawing.place = place
                drawing.version += 1

    def _forget(self) -> None:
        """Drop the oldest drawings beyond what is kept, but never the last."""
        ended = [d for d in self._drawings.values() if d.state.ended]
        held = sum(d.bytes for d in ended)
        for i, drawing in enumerate(ended[:-1]):
            within = held <= self._limits.kept_bytes
            if within and len(ended) - i <= self._limits.kept:
                return
            held -= drawing.bytes
            del self._drawings[drawing.id]
