"""Numbers and pictures of a run: JSON lines always, TensorBoard and W&B if wanted."""

import contextlib
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

TENSORBOARDS = ("auto", "clu", "tensorboardX", "none")


class Log:
    """Writes `metrics.jsonl`, `samples/*.png` and TensorBoard events in a workdir.

    The same goes to Weights & Biases, where a project is named.

    Only the first process of a job should have one.
    """

    def __init__(
        self, workdir: str, *, step: int, tensorboard: str = "auto", wandb: str = ""
    ):
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
        self._boards = _boards(self._workdir, step, tensorboard, wandb)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line and the same numbers for TensorBoard."""
        line = json.dumps({"step": step, **_finite(values)}) + "\n"
        if self._remote:
            self._lines.append(line)
            self._path.write_text("".join(self._lines))
        else:
            with open(self._path, "a") as file:
                file.write(line)
        for board in self._boards:
            board.scalars(step, values)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Write a uint8 picture [H, W, 3] as PNG and for TensorBoard."""
        folder = self._workdir / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}_{step:08d}.png").open("wb") as file:
            Image.fromarray(np.asarray(image)).save(file, format="PNG")
        for board in self._boards:
            board.image(step, name, image)

    def close(self) -> None:
        """Write what is buffered."""
        for board in self._boards:
            board.close()


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


def _boards(folder: epath.Path, step: int, tensorboard: str, wandb: str) -> list[Any]:
    """The writers asked for, each with `scalars`, `image` and `close`.

    "auto" takes clu where TensorFlow is loaded already (importing it only for this
    costs 6 s and 800 MB), else tensorboardX, else none.
    """
    if tensorboard not in TENSORBOARDS:
        raise ValueError(
            f"Log: tensorboard must be one of {TENSORBOARDS}, got {tensorboard!r}."
        )

    def there(name):
        return name in sys.modules or importlib.util.find_spec(name) is not None

    kind = tensorboard
    if kind == "auto" and "tensorflow" in sys.modules and there("clu"):
        kind = "clu"
    elif kind == "auto" and there("tensorboardX"):
        kind = "tensorboardX"
    boards: list[Any] = []
    if kind == "clu":
        boards.append(_Clu(folder / "tensorboard"))
    elif kind == "tensorboardX":
        boards.append(_TensorboardX(folder / "tensorboard", step))
    if wandb:
        if not there("wandb"):
            raise ValueError(
                "Log: wandb is not installed, and the project "
                f"{wandb!r} was asked for; `pip install wandb`, or leave "
                "training.wandb empty."
            )
        boards.append(_Wandb(folder, wandb))
    return boards


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


class _Wandb:
    """One run in Weights & Biases for a workdir, whatever restarts it has."""

    def __init__(self, folder, project):
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            name=folder.name,
            # Of the whole path: two workdirs of one name are two runs.
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],
            resume="allow",
        )

    def scalars(self, step, values):
        self._run.log(dict(values), step=step)

    def image(self, step, name, image):
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def close(self):
        self._run.finish()
