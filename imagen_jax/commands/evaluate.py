"""`imagen-jax evaluate`: draw held-out captions and check the pictures against them."""

import argparse
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator

from imagen_jax.commands import sampling_flags

SUITES = {
    "composition": "held-out emoji prompts: objects, counts, relations, sizes, grounds",
    "shapes": "held-out captions of coloured shapes, right or wrong",
    "scorer": "the scorer of emoji scenes itself, on held-out real pictures",
    "solvers": "the first stage's solvers at few steps, against many steps",
    "thresholds": "the first stage's thresholds over guidance weights",
}
NUM = {
    "composition": 600,
    "shapes": 256,
    "scorer": 5000,
    "solvers": 192,
    "thresholds": 48,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "--suite",
        choices=tuple(SUITES),
        default="composition",
        help="; ".join(f"{name}: {text}" for name, text in SUITES.items()),
    )
    parser.add_argument("--model", help="a model directory or name")
    parser.add_argument(
        "--scorer", default="", help="a scorer's directory (default: the shipped one)"
    )
    parser.add_argument(
        "--num",
        type=int,
        help=", ".join(f"{n} captions ({suite})" for suite, n in NUM.items()),
    )
    parser.add_argument("--seed", type=int, default=0, help="of captions and noise")
    parser.add_argument(
        "--out",
        help="folder for the report, a sheet of failures and, of the composition "
        "suite and the studies, every picture: an interrupted run goes on from there",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    sampling_flags.add_settings(parser)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print how much of what was asked for the pictures show."""
    del rest
    if args.suite != "scorer" and not args.model:
        raise ValueError("--model: required, a model directory or name such as emoji.")
    num = NUM[args.suite] if args.num is None else args.num
    out = pathlib.Path(args.out) if args.out else None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    report = {
        "composition": composition,
        "shapes": shapes,
        "scorer": scorer,
        "solvers": study,
        "thresholds": study,
    }[args.suite](args, num, out)
    table = json.dumps(report.table(), indent=1)
    if out is not None:
        (out / "report.json").write_text(table + "\n")
        if report.failures:
            report.sheet().save(out / "failures.png")
    print(table if args.json else report)
    return 0


def composition(args: argparse.Namespace, num: int, out: pathlib.Path | None):
    """Draw and check emoji scenes."""
    from imagen_jax import loading
    from imagen_jax.evaluation import composition_suite

    judge, recorded = loading.load_scorer(args.scorer)
    model = loading.load(args.model)
    with bar(num) as progress:
        return composition_suite.run(
            model,
            judge,
            recorded,
            num=num,
            seed=args.seed,
            out=out,
            identity=loading.model_hash(args.model),
            progress=progress,
            **sampling_flags.settings_of(args),
        )


def study(args: argparse.Namespace, num: int, out: pathlib.Path | None):
    """Draw the same emoji scenes with each of many settings of the first stage."""
    from imagen_jax import loading
    from imagen_jax.evaluation import sampling_study, study_report

    judge, _ = loading.load_scorer(args.scorer)
    model = loading.load(args.model)
    recipes = model.recipes_with(**sampling_flags.settings_of(args))
    study = sampling_study.Study(
        model=dataclasses.replace(model, recipes=recipes),
        scorer=judge,
        num=num,
        seed=args.seed,
        out=out,
        identity=loading.model_hash(args.model),
    )
    settings = {
        "solvers": study_report.of_solvers,
        "thresholds": study_report.of_thresholds,
    }[args.suite]()
    with bar(num * len(settings)) as progress:
        report = study_report.run(study, args.suite, settings, progress)
    if out is not None:
        report.sheet().save(out / "grid.png")
    return report


@contextlib.contextmanager
def bar(num: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of so many pictures."""
    import tqdm

    with tqdm.tqdm(total=num, unit="picture", dynamic_ncols=True) as shown:

        def progress(done: int, total: int) -> None:
            del total
            shown.update(done - shown.n)

        yield progress


def shapes(args: argparse.Namespace, num: int, out: pathlib.Path | None):
    """Draw and check coloured shapes."""
    del out
    from imagen_jax import loading
    from imagen_jax.evaluation import suites

    model = loading.load(args.model)
    return suites.shapes(
        model, num, args.seed, progress=True, **sampling_flags.settings_of(args)
    )


def scorer(args: argparse.Namespace, num: int, out: pathlib.Path | None):
    """Check the scorer on real pictures."""
    del out
    from imagen_jax import loading
    from imagen_jax.evaluation import scorer_suite

    judge, _ = loading.load_scorer(args.scorer)
    return scorer_suite.run(judge, num, args.seed)
