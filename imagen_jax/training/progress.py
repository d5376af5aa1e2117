"""What a person sees of a run while it goes."""

import sys
from collections.abc import Mapping

import tqdm

# Label -> name in the record of the loop.
SHOWN = {
    "loss": "loss",
    "steps/s": "steps_per_second",
    "images/s": "images_per_second",
    "model TFLOP/s": "model_tflops_per_second",
    "utilisation": "utilisation",
    "goodput": "goodput",
}


class Progress:
    """A bar on a terminal's standard error; elsewhere one line for each log."""

    def __init__(self, start: int, total: int, *, show: bool):
        """Begin at step `start` of `total`; with `show` false, say nothing."""
        self._total = total
        self._show = show
        self._bar = None
        if show and sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=total, initial=start, unit="step", dynamic_ncols=True
            )
        if start:
            self.say(f"Going on from step {start}.")

    def advance(self) -> None:
        """One step is done."""
        if self._bar is not None:
            self._bar.update(1)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Show the numbers of a log."""
        shown = {k: f"{values[n]:.3g}" for k, n in SHOWN.items() if n in values}
        bad = sum(int(v) for k, v in values.items() if k.startswith("bad_"))
        if bad:
            shown["bad examples"] = str(bad)
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        else:
            self.say(
                f"step {step}/{self._total}  "
                + "  ".join(f"{k} {v}" for k, v in shown.items())
            )

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        if self._show:
            tqdm.tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
