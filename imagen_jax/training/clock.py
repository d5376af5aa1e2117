"""Where a run's time goes, over all its restarts."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

# steps: training itself. data: the wait for a batch while the devices had nothing to
# do. checkpoints: what saving holds up. start: restoring, tracing, compiling, the first
# step. other: samples, evaluations, logs.
KINDS = ("steps", "data", "checkpoints", "start", "other")


class Clock:
    """What this process is doing, and for how long it has done each kind of work.

    A new clock is at "start" until `begin_steps`; then it is at "steps" wherever it is
    not inside `doing`.

    Attributes:
      kind: what is being done, one of KINDS.
      since: time.monotonic() when that began.
    """

    def __init__(self):
        self.kind, self.since = "start", time.monotonic()
        self._began = time.time()
        self._seconds: dict[str, float] = {kind: 0.0 for kind in KINDS}

    def go_on(self, before: Mapping[str, float]) -> None:
        """Add what a checkpoint's `totals` say of the time until then."""
        self._began = before.get("began", self._began)
        for kind in KINDS:
            self._seconds[kind] += before.get(kind, 0.0)

    def begin_steps(self) -> None:
        """The first step has ended: from now on the time between is training."""
        self._switch("steps")

    @contextlib.contextmanager
    def doing(
        self, kind: str, hidden: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Around work of one kind; inside another such block, that one pauses.

        Args:
          kind: one of KINDS.
          hidden: asked at the end; True says that the devices had work all the while,
            so that no time was lost.
        """
        before = self.kind
        self._switch(kind)
        try:
            yield
        finally:
            self._switch(before, into=before if hidden() else kind)

    def _switch(self, kind: str, into: str | None = None) -> None:
        now = time.monotonic()
        self._seconds[into or self.kind] += now - self.since
        self.kind, self.since = kind, now

    def seconds(self) -> dict[str, float]:
        """Seconds by kind until now, earlier starts included."""
        self._switch(self.kind)
        return dict(self._seconds)

    def totals(self) -> dict[str, float]:
        """What a checkpoint keeps: `seconds`, and when the run first began (Unix)."""
        return {"began": self._began, **self.seconds()}

    def lost(self) -> dict[str, float]:
        """The share of all time spent in steps that count, and where the rest went.

        All time is counted from the run's first start. What no kind explains went to
        interruptions: steps done again after a kill, and the time when nothing ran.
        """
        seconds = self.seconds()
        wall = max(time.time() - self._began, sum(seconds.values()), 1e-9)
        interrupted = wall - sum(seconds.values())
        return {
            "goodput": seconds.pop("steps") / wall,
            **{f"lost_to_{kind}_seconds": value for kind, value in seconds.items()},
            "lost_to_interruptions_seconds": interrupted,
        }
