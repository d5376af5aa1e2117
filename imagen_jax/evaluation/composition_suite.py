"""The suite of emoji scenes: draw held-out prompts, check each part of each claim."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from imagen_jax.cascade.contact_sheet import contact_sheet
from imagen_jax.cascade.text_to_image import TextToImage
from imagen_jax.data import emoji
from imagen_jax.evaluation import composition
from imagen_jax.evaluation.suites import interval

# Prompts of each kind, as parts of all.
SHARES = {"single": 3, "relation": 4, "count": 3, "and": 2}
# Pictures that are drawn and kept together.
CHUNK = 8
SHOWN = 24

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      name: what is asked.
      right, drawn: pictures.
      ceiling: how many of the same prompts' real renders the scorer takes for right.
    """

    name: str
    right: int
    drawn: int
    ceiling: int

    def numbers(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        low, high = interval(self.right, self.drawn)
        return {
            "right": self.right,
            "drawn": self.drawn,
            "share": self.right / self.drawn,
            "interval_95": [low, high],
            "ceiling": self.ceiling / self.drawn,
        }

    def __str__(self) -> str:
        n = self.numbers()
        low, high = n["interval_95"]
        return (
            f"{self.name:<27} {self.right:>4} of {self.drawn:<4} {n['share']:>6.1%}  "
            f"{low:>6.1%} to {high:<6.1%}  {n['ceiling']:>6.1%}"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of the suite.

    Attributes:
      rows: the table.
      scorer: its recorded (right, judged) on held-out real renders, by attribute.
      failures: (picture, prompt, what is wrong), the worst first.
    """

    rows: tuple[Row, ...]
    scorer: dict[str, tuple[int, int]]
    failures: tuple[tuple[np.ndarray, str, str], ...]

    def table(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "suite": "composition",
            "rows": {row.name: row.numbers() for row in self.rows},
            "scorer": self.scorer,
        }

    def __str__(self) -> str:
        """The table, and how often the scorer itself is right."""
        head = f"{'':<27} {'right':>12}  share   95 % interval    ceiling"
        own = ", ".join(
            f"{name} {right / judged:.2%}"
            for name, (right, judged) in self.scorer.items()
            if name != "right"
        )
        number = self.scorer["right"][1]
        return "\n".join(
            [
                head,
                *map(str, self.rows),
                "ceiling: the scorer's verdict on real pictures of the same prompts",
                f"the scorer itself, on {number:,} held-out real pictures: {own}",
            ]
        )

    def sheet(self):
        """The worst failures (PIL image)."""
        some = self.failures[:SHOWN]
        labels = [f"{prompt}: {reason}" for _, prompt, reason in some]
        return contact_sheet([f[0] for f in some], labels, columns=8, cell=128)


def prompts(num: int, seed: int) -> list[emoji.Scene]:
    """Held-out scenes, so many of each kind as SHARES says, in the split's order.

    Raises:
      ValueError: if num is too small for one of each kind.
    """
    total = sum(SHARES.values())
    if num < total:
        raise ValueError(f"evaluate: num must be >= {total}, got {num}.")
    wanted = {kind: num * share // total for kind, share in SHARES.items()}
    wanted["relation"] += num - sum(wanted.values())
    chosen, index = [], 0
    while len(chosen) < num:
        scene = emoji.scene(seed, index, "heldout")
        index += 1
        if wanted[scene.kind]:
            wanted[scene.kind] -= 1
            chosen.append(scene)
    return chosen


def rows(
    scenes: list[emoji.Scene],
    drawn: list[composition.Verdict],
    real: list[composition.Verdict],
) -> tuple[Row, ...]:
    """Count the verdicts, of drawn and of real pictures, by what was asked.

    "background": of all prompts. "single object" and "counts": the object claimed, as
    often as claimed, and no other. "two objects with relation": wholly right, every
    part of the claim. "two objects": both, and no other. "sizes": of prompts that name
    one. "paraphrased" and "all": wholly right.
    """

    def objects(verdict: composition.Verdict) -> bool:
        return verdict.identity and verdict.count

    def whole(verdict: composition.Verdict) -> bool:
        return verdict.right

    questions: dict[str, tuple[Callable, Callable]] = {
        "background": (lambda s: True, lambda v: v.background),
        "single object": (lambda s: s.kind == "single", objects),
        "two objects with relation": (lambda s: s.kind == "relation", whole),
        "two objects": (lambda s: s.kind == "and", objects),
        "counts": (lambda s: s.kind == "count", objects),
        "sizes": (lambda s: any(t.size for t in s.claim.things), lambda v: v.size),
        "paraphrased": (lambda s: s.claim.paraphrased, whole),
        "all": (lambda s: True, whole),
    }
    table = []
    for name, (asked, holds) in questions.items():
        which = [i for i, scene in enumerate(scenes) if asked(scene)]
        if which:
            right, ceiling = (
                sum(bool(holds(verdicts[i])) for i in which)
                for verdicts in (drawn, real)
            )
            table.append(Row(name, right, len(which), ceiling))
    return tuple(table)


def run(
    model: TextToImage,
    scorer: composition.Scorer,
    recorded: dict[str, tuple[int, int]],
    *,
    num: int = 600,
    seed: int = 0,
    out: pathlib.Path | None = None,
    identity: str = "",
    progress: Progress = lambda done, total: None,
    **settings: Any,
) -> Report:
    """Draw one picture of each prompt and check it.

    Args:
      model: a cascade of emoji scenes.
      scorer: finds what is in a picture.
      recorded: the scorer's own accuracy.
      num: prompts.
      seed: of the prompts and the noise.
      out: keeps drawn pictures, so that an interrupted run goes on.
      identity: tells this model from others; pictures of another are refused.
      progress: called with (prompts drawn, num).
      **settings: as `TextToImage.sample`.

    Raises:
      ValueError: if num is too small, or `out` holds pictures of something else.
    """
    scenes = prompts(num, seed)
    captions = [scene.caption for scene in scenes]
    size = model.cascade.stages[-1].resolution
    cache = None
    if out is not None:
        cache = out / "pictures"
        what = {"model": identity, "prompts": captions, "seed": seed, **settings}
        settle(cache, what)
    real, drawn, kept = [], [], []
    for part in chunks(scenes, composition.BATCH):
        pictures = np.stack([emoji.render(scene, size) for scene in part])
        real += checked(scorer, pictures, part)
    for i, words in enumerate(chunks(captions, CHUNK)):
        file = None if cache is None else cache / f"{i:04d}.npy"
        if file is not None and file.exists():
            pictures = np.load(file)
        else:
            # A picture's noise hangs on the seed alone: with one seed for all, what
            # one noise spoils would count hundreds of times.
            pictures = model.sample(words, seed=seed + i, **settings).images
            if file is not None:
                whole = file.with_suffix(".part.npy")
                np.save(whole, pictures)
                whole.rename(file)
        kept += list(pictures)
        progress(len(kept), num)
    for part in chunks(range(num), composition.BATCH):
        pictures = np.stack([kept[i] for i in part])
        drawn += checked(scorer, pictures, [scenes[i] for i in part])
    order = sorted(range(num), key=lambda i: -drawn[i].wrong)
    failures = tuple(
        (kept[i], scenes[i].caption, drawn[i].reason)
        for i in order
        if not drawn[i].right
    )
    return Report(rows(scenes, drawn, real), recorded, failures)


def chunks(whole: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """Cut a sequence into parts of `size`, the last perhaps shorter."""
    return (whole[i : i + size] for i in range(0, len(whole), size))


def checked(
    scorer: composition.Scorer, pictures: np.ndarray, scenes: Sequence[emoji.Scene]
) -> list[composition.Verdict]:
    """Look at pictures and compare each with its claim."""
    seen = scorer.look(pictures)
    return [composition.check(a, b.claim) for a, b in zip(seen, scenes, strict=True)]


def settle(folder: pathlib.Path, what: dict[str, Any]) -> None:
    """Claim a folder for these pictures, or see that it is theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()
    path = folder / "key"
    if path.exists() and path.read_text() != key:
        raise ValueError(
            f"--out: {folder} holds pictures of another model, prompts or settings; "
            "use a new folder, or delete this one."
        )
    path.write_text(key)
