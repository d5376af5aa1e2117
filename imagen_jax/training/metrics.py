"""Numbers and pictures of a run: JSON lines always, TensorBoard where there is one."""

import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath
from PIL import Image

TENSORBOARDS = ("auto", "clu", "tensorboardX", "none")


class Log:
    """Writes `metrics.jsonl`, `samples/*.png` and TensorBoard events in a workdir.

    Only the first process of a job should have one.
    """

    def __init__(self, workdir: str, *, step: int, tensorboard: str = "auto"):
        """Open the log of a run that goes on after `step`.

        Lines past that step, and a last line cut off by a kill, are dropped: the steps
        come again.
        """
        self._workdir = epath.Path(workdir)
        self._workdir.mkdir(parents=True, exist_ok=True)
        self._path = self._workdir / "metrics.jsonl"
        self._lines = list(_lines_until(self._path, step))
        _replace(self._path, "".join(self._lines))
        # An object store cannot append: there the whole file is written again.
        self._remote = "://" in str(workdir)
        self._board = _board(self._workdir / "tensorboard", step, tensorboard)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line and the same numbers for TensorBoard."""
        line = json.dumps({"step": step, **_finite(values)}) + "\n"
        if self._remote:
            self._lines.append(line)
            self._path.write_text("".join(self._lines))
        else:
            with open(self._path, "a") as file:
                file.write(line)
        if self._board is not None:
            self._board.scalars(step, values)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a uint8 picture [H, W, 3] as PNG and for TensorBoard."""
        folder = self._workdir / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}_{step:08d}.png").open("wb") as file:
            Image.fromarray(np.asarray(image)).save(file, format="PNG")
        if self._board is not None:
            self._board.image(step, name, image)

    def close(self) -> None:
        """Write what is buffered."""
        if self._board is not None:
            self._board.close()


class Meter:
    """Means of the metrics and rates of the work since the last `summary`."""

    def __init__(self):
        self._start = time.monotonic()
        self._reset()

    def _reset(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._steps, self._idle, self._waited = 0, 0.0, 0.0
        self._start = time.monotonic()

    def restart(self) -> None:
        """Forget the time spent, not the metrics: the first step compiles."""
        self._steps, self._idle, self._waited = 0, 0.0, 0.0
        self._start = time.monotonic()

    def add(self, values: Mapping[str, float]) -> None:
        """Add the metrics of one step; what is not finite enters no mean."""
        self._steps += 1
        for name, value in values.items():
            if np.isfinite(value):
                self._values.setdefault(name, []).append(value)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait for data."""
        before = time.monotonic()
        yield
        self._waited += time.monotonic() - before

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is not training: saving, sampling."""
        before = time.monotonic()
        yield
        self._idle += time.monotonic() - before

    def summary(self, *, examples: int, flops: float) -> dict[str, float]:
        """Means and rates, then begin again.

        Args:
          examples: in one step, over all processes.
          flops: model operations in one step, over all processes.
        """
        means = {name: float(np.mean(v)) for name, v in self._values.items()}
        seconds = time.monotonic() - self._start - self._idle
        if self._steps and seconds > 0:
            rate = self._steps / seconds
            means |= {
                "steps_per_second": rate,
                "images_per_second": rate * examples,
                "model_tflops_per_second": rate * flops / 1e12,
                "data_wait_share": min(self._waited / seconds, 1.0),
            }
        self._reset()
        return means


def _lines_until(path: epath.Path, step: int) -> Iterator[str]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and record.get("step", step + 1) <= step:
                yield line + "\n"


def _replace(path: epath.Path, text: str) -> None:
    new = path.parent / (path.name + ".new")
    new.write_text(text)
    new.replace(path)


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    # JSON knows no NaN. Counts stay whole numbers.
    return {
        k: (v if isinstance(v, int) else float(v)) if np.isfinite(v) else None
        for k, v in values.items()
    }


def _board(folder: epath.Path, step: int, kind: str):
    """The TensorBoard writer asked for, or None.

    "auto" takes clu where TensorFlow is loaded already (importing it only for this
    costs 6 s and 800 MB), else tensorboardX, else none.
    """
    if kind not in TENSORBOARDS:
        raise ValueError(
            f"Log: tensorboard must be one of {TENSORBOARDS}, got {kind!r}."
        )

    def there(name):
        return importlib.util.find_spec(name) is not None

    if kind == "clu" or (
        kind == "auto" and "tensorflow" in sys.modules and there("clu")
    ):
        return _Clu(folder)
    if kind == "tensorboardX" or (kind == "auto" and there("tensorboardX")):
        return _TensorboardX(folder, step)
    return None


class _Clu:
    def __init__(self, folder):
        from clu import metric_writers

        self._writer = metric_writers.SummaryWriter(str(folder))

    def scalars(self, step, values):
        self._writer.write_scalars(step, dict(values))

    def image(self, step, name, image):
        self._writer.write_images(step, {name: image[None]})

    def close(self):
        self._writer.close()


class _TensorboardX:
    def __init__(self, folder, step):
        import tensorboardX

        self._writer = tensorboardX.SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step, values):
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step, name, image):
        self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self):
        self._writer.close()
