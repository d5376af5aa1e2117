"""The outcome of a study of sampling settings, as a table, numbers and pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from imagen_jax.cascade.labelled_grid import labelled_grid
from imagen_jax.data import emoji
from imagen_jax.evaluation import composition_suite, pairs, suites
from imagen_jax.evaluation.sampling_study import Drawn, Progress, Study

# The column of each kind of prompt, and the composition suite's row.
KINDS = {
    "ground": "background",
    "single": "single object",
    "relation": "two objects with relation",
    "two": "two objects",
    "counts": "counts",
}
SHOWN = 4


class Setting(NamedTuple):
    """What is drawn with in the first stage.

    Attributes:
      made: as `TextToImage.recipes_with` takes it.
      against: name of the setting that it is compared with.
    """

    made: Mapping[str, Any]
    against: str


def of_solvers() -> dict[str, Setting]:
    """Twenty steps or fewer of each solver, against 250 of the paper's."""
    found = {}
    for solver, steps, grid in (
        ("ancestral", 250, "uniform"),
        ("ancestral", 20, "uniform"),
        ("ddim", 20, "uniform"),
        ("dpmpp_2m", 20, "uniform"),
        ("dpmpp_2m", 20, "logsnr"),
        ("unipc", 20, "uniform"),
        ("unipc", 20, "logsnr"),
    ):
        name = f"{solver} {steps}" + (f" {grid}" if grid != "uniform" else "")
        made = {"solver": solver, "steps": steps, "grid": grid}
        found[name] = Setting(made, "ancestral 250")
    return found


def of_thresholds() -> dict[str, Setting]:
    """Each thresholding at each weight, against static at the same weight."""
    return {
        f"{kind} w={w:g}": Setting(
            {"threshold": kind, "guidance": w}, f"static w={w:g}"
        )
        for w in (1.0, 2.0, 4.0, 8.0, 16.0)
        for kind in ("none", "static", "dynamic")
    }


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
      suite: its name.
      settings: by name.
      drawn: what each drew.
      true: the true pictures of the same prompts, and what the scorer finds in them.
      scenes: that were asked for.
      calls: how often a picture goes through the first stage's network, by setting.
      stages: names of the first stage and of that which the scorer looks at.
    """

    suite: str
    settings: Mapping[str, Setting]
    drawn: Mapping[str, Drawn]
    true: Drawn
    scenes: Sequence[emoji.Scene]
    calls: Mapping[str, int]
    stages: tuple[str, str]
    failures = ()

    def numbers(self, name: str) -> dict[str, Any]:
        """One setting's numbers, for JSON."""
        ours, theirs = self.drawn[name], self.drawn[self.settings[name].against]
        right, number = int(ours.right.sum()), len(ours.right)
        kinds = composition_suite.rows(
            list(self.scenes), ours.verdicts, self.true.verdicts
        )
        each = {row.name: [row.right, row.drawn] for row in kinds}
        # Chunk by chunk: what else the machine did then slowed both.
        ratios = theirs.seconds / ours.seconds
        return {
            "right": right,
            "drawn": number,
            "share": right / number,
            "interval_95": list(suites.interval(right, number)),
            "against": self.settings[name].against,
            "difference": float(ours.right.mean() - theirs.right.mean()),
            "difference_95": list(pairs.interval(ours.right, theirs.right)),
            "kinds": {short: each[row] for short, row in KINDS.items() if row in each},
            "calls": self.calls[name],
            "seconds": median(ours.seconds) / composition_suite.CHUNK,
            "times_faster": median(ratios),
            "chunks_timed": int(np.isfinite(ratios).sum()),
            "saturation": ours.saturation,
        }

    def table(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "suite": self.suite,
            "stage": self.stages[0],
            "judged": self.stages[1],
            "rows": {name: self.numbers(name) for name in self.settings},
            "true": {
                "right": int(self.true.right.sum()),
                "drawn": len(self.true.right),
                "saturation": self.true.saturation,
            },
        }

    def __str__(self) -> str:
        """A Markdown table."""
        head = (
            *("setting", "right", *KINDS, "difference (95 %)", "calls", "s a picture"),
            *("times faster", "saturated"),
        )
        lines = [" | ".join(head), " | ".join("---" for _ in head)]
        for name in self.settings:
            n = self.numbers(name)
            low, high = (100 * value for value in n["difference_95"])
            kinds = [n["kinds"].get(kind, [0, 0]) for kind in KINDS]
            cells = (
                name,
                f"{n['share']:.1%}",
                *(f"{right}/{number}" for right, number in kinds),
                f"{100 * n['difference']:+.1f} ({low:+.1f} to {high:+.1f})",
                f"{n['calls']}",
                f"{n['seconds']:.2f}",
                f"{n['times_faster']:.1f}",
                f"{n['saturation']:.1%}",
            )
            lines.append(" | ".join(cells))
        lines = [f"| {line} |" for line in lines]
        first, judged = self.stages
        true = self.true
        return "\n".join(
            [
                *lines,
                f"{len(true.right)} prompts; {first} with each setting, enlarged by "
                f"the model's own settings to {judged}, which the scorer looks at",
                f"true pictures of {first}'s size, enlarged the same way: "
                f"{true.right.mean():.1%} right, {true.saturation:.1%} saturated",
            ]
        )

    def sheet(self):
        """The first prompts as each setting drew them (PIL image)."""
        some = range(min(SHOWN, len(self.scenes)))
        return labelled_grid(
            [[drawn.judged[i] for drawn in self.drawn.values()] for i in some],
            x=("", list(self.drawn)),
            y=("", [self.scenes[i].caption for i in some]),
            cell=96,
        )


def median(values: np.ndarray) -> float:
    """Of those that are numbers; nan if none is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def run(
    study: Study,
    suite: str,
    settings: Mapping[str, Setting],
    progress: Progress = lambda done, total: None,
) -> Report:
    """Draw and judge all settings.

    Args:
      study: the model, its judge and the prompts.
      suite: name of the report.
      settings: by name; each is compared with one of them.
      progress: as in `Study.draw`.

    Raises:
      ValueError: as `Study.draw`.
    """
    drawn = study.draw({name: s.made for name, s in settings.items()}, progress)
    stage = study.model.cascade.stages[0]
    calls = {}
    for name, setting in settings.items():
        recipes = study.model.recipes_with(**study.of_first(setting.made))
        calls[name] = stage.evaluations(recipes[0])[0]
    names = (study.model.stage_names[0], study.judged_stage)
    return Report(suite, settings, drawn, study.true(), study.scenes, calls, names)
