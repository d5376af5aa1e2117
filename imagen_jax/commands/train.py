"""`imagen-jax train`: train a stage or a text encoder from a config."""

import argparse
import json

from etils import epath

from imagen_jax.commands import configs, joining


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of this command."""
    parser.add_argument(
        "--config",
        required=True,
        help="name (emoji/base) or file of a config; any key is overridden as "
        "--config.key=value",
    )
    parser.add_argument(
        "--workdir",
        required=True,
        help="gets checkpoints, logs and samples; a run that is there goes on",
    )
    parser.add_argument(
        "--init_from",
        help="begin with the parameters of a working directory or safetensors file",
    )
    parser.add_argument(
        "--overfit_one_batch",
        action="store_true",
        help="train on the first batch only: a quick check that it can be learned",
    )
    parser.add_argument(
        "--max_minutes",
        type=float,
        help="stop after so many minutes, saved; the same command goes on from there",
    )
    parser.add_argument(
        "--compilation_cache",
        metavar="DIR",
        help="keeps compiled programs for the next start; 'none' for none (default: "
        "$JAX_COMPILATION_CACHE_DIR, else WORKDIR/compiled)",
    )
    joining.add_arguments(parser)
    parser.set_defaults(takes_config=True)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Train until the config's number of steps."""
    config = configs.load(args.config)
    configs.override(config, rest)

    joining.start(args)

    from imagen_jax import distributed

    with distributed.ending_together():
        train(config, args)
    return 0


def train(config, args: argparse.Namespace) -> None:
    """Train, as one process or as one of several that have joined."""
    import jax

    from imagen_jax import build
    from imagen_jax.training import loop

    if jax.process_index() == 0:
        write_config(config, args.workdir)
    keep_compiled(args.compilation_cache, args.workdir)
    training = build.training_run(config)
    settings = build.loop_settings(
        config,
        args.workdir,
        init_from=args.init_from,
        overfit_one_batch=args.overfit_one_batch,
        max_minutes=args.max_minutes,
    )
    loop.train(training, settings)


def keep_compiled(folder: str | None, workdir: str) -> None:
    """Let a start find what an earlier one has compiled."""
    import jax

    if folder is None:
        there = jax.config.values["jax_compilation_cache_dir"]
        folder = there or str(epath.Path(workdir) / "compiled")
    jax.config.update("jax_compilation_cache_dir", None if folder == "none" else folder)


def write_config(config, workdir: str) -> None:
    """Leave the config in the working directory, refusing another network's.

    Lengths and rates may change between runs; what the checkpoints' arrays depend on
    may not.
    """
    folder = epath.Path(workdir)
    path = folder / "config.json"
    if path.exists() and (folder / "checkpoints").exists():
        before = json.loads(path.read_text())
        after = json.loads(config.to_json_best_effort())
        for group in ("kind", "network", "text", "stage"):
            if group in before and before[group] != after.get(group):
                raise ValueError(
                    f"--workdir: {workdir} holds a run with another config.{group}; "
                    "use a new directory, or --init_from it."
                )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json.loads(config.to_json_best_effort()), indent=1))
