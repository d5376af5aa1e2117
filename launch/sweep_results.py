"""What the runs of a sweep have come to, read from their own folders."""

import csv
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from etils import epath

import shell
import sweep_runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One row of the table.

    Attributes:
      run: whose it is.
      state: "finished", "failed", "unfinished" or "not started".
      step: of its last checkpoint.
      curve: (step, value) of the metric.
      last, best, best_step: of the curve; None where the metric was never logged.
      minutes: spent in training steps, by the log's own rates.
      metrics: names that its log has.
    """

    run: sweep_runs.Run
    state: str
    step: int
    curve: Sequence[tuple[int, float]]
    last: float | None
    best: float | None
    best_step: int | None
    minutes: float | None
    metrics: frozenset[str]


def saved_step(workdir: str) -> int:
    """The step of the last whole checkpoint, 0 where there is none.

    Raises:
      LaunchError: when the bucket cannot be read.
    """
    folder = epath.Path(workdir) / "checkpoints"
    try:
        names = [p.name for p in folder.iterdir()] if folder.exists() else []
    except Exception as error:  # each kind of bucket has its own
        cause = " ".join(str(error).split())
        raise shell.LaunchError(f"cannot read {folder}: {cause}") from None
    return max((int(name) for name in names if name.isdigit()), default=0)


def read(run: sweep_runs.Run, logs: str, metric: str, best: str) -> Result:
    """What a run has come to; `best` is "min" or "max"."""
    step = saved_step(run.workdir)
    records = list(log_of(run.workdir))
    curve = [
        (record["step"], record[metric])
        for record in records
        if isinstance(record.get(metric), int | float)
    ]
    choose = min if best == "min" else max
    top = choose(curve, key=lambda point: point[1], default=(None, None))
    return Result(
        run=run,
        state=state_of(run, step, pathlib.Path(logs) / run.name),
        step=step,
        curve=curve,
        last=curve[-1][1] if curve else None,
        best=top[1],
        best_step=top[0],
        minutes=minutes_of(records),
        metrics=frozenset().union(*records) - {"step"},
    )


def state_of(run: sweep_runs.Run, step: int, folder: pathlib.Path) -> str:
    """In a word; how its last start ended is in the folder of its log."""
    if step >= run.steps:
        return "finished"
    status = folder / "exit_status"
    if status.exists() and status.read_text().strip() != "0":
        return "failed"
    return "unfinished" if step else "not started"


def log_of(workdir: str) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl; a line cut off by a kill is left out."""
    path = epath.Path(workdir) / "metrics.jsonl"
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def minutes_of(records: Sequence[dict[str, Any]]) -> float | None:
    """Steps divided by steps per second, summed over the log."""
    seconds, before = 0.0, 0
    for record in records:
        if record.get("steps_per_second"):
            seconds += (record["step"] - before) / record["steps_per_second"]
            before = record["step"]
    return seconds / 60 if before else None


def rows(results: Sequence[Result], metric: str) -> list[list[str]]:
    """The table, its head first."""
    keys = list(dict.fromkeys(key for r in results for key in r.run.values))
    best = [metric, f"best {metric}", "at step"]
    found = [["run", *keys, "state", "step", *best, "minutes"]]
    for r in results:
        found.append(
            [
                r.run.name,
                *(r.run.values.get(key, "") for key in keys),
                r.state,
                f"{r.step} of {r.run.steps}",
                "" if r.last is None else f"{r.last:.5g}",
                "" if r.best is None else f"{r.best:.5g}",
                "" if r.best_step is None else str(r.best_step),
                "" if r.minutes is None else f"{r.minutes:.2f}",
            ]
        )
    return found


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table as markdown."""
    head, *body = table
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(results: Sequence[Result], folder: str, metric: str) -> str:
    """Write results.md, results.csv and, with matplotlib, results.png; the table."""
    table = rows(results, metric)
    out = epath.Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    shown = markdown(table)
    (out / "results.md").write_text(shown)
    with (out / "results.csv").open("w") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    logged = frozenset().union(*(r.metrics for r in results))
    if logged and metric not in logged:
        shell.say(
            f"No run has logged {metric!r}; there is {', '.join(sorted(logged))}."
        )
    plot(results, out / "results.png", metric)
    return shown


def plot(results: Sequence[Result], path: epath.Path, metric: str) -> None:
    """Draw the metric of every run over its steps."""
    try:
        import matplotlib
    except ImportError:
        shell.say("No plot: it needs `pip install matplotlib`.")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 5))
    for r in results:
        if r.curve:
            axis.plot(*zip(*r.curve, strict=True), label=r.run.name, marker=".")
    axis.set(xlabel="step", ylabel=metric)
    axis.grid(True, alpha=0.3)
    if any(r.curve for r in results):
        axis.legend(fontsize="small")
    figure.tight_layout()
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=80)
    pyplot.close(figure)
