"""Train once for each of some values of a config's keys, and compare.

  python launch/sweep.py runs/lr --grid optimizer.peak_lr=1e-3,2e-3 --grid seed=0,1 \\
    -- imagen-jax train --config shapes/base --config.text.weights=runs/shapes_text
  python launch/sweep.py gs://BUCKET/lr --logs lr --file lr.toml \\
    --through "python launch/slurm.py {name} --nodes 2" -- imagen-jax train ...

Every run has a folder named by its values, and is what its folder says: given again,
the same sweep leaves finished runs alone, and starts the others or lets them go on
from their checkpoints. At the end results.md, results.csv and results.png compare them;
--table writes these alone. The status is 0 when all have finished.
"""

import argparse
import shlex
from collections.abc import Sequence

import shell
import sweep_local
import sweep_results
import sweep_runs
import training_command


def arguments() -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, usage="OUT [flags]")
    p.add_argument("out", help="the folder or bucket that gets a folder for each run")
    sweep_runs.add_arguments(p)
    p.add_argument("--metric", default="loss", help="what is compared")
    p.add_argument("--best", choices=("min", "max"), default="min")
    p.add_argument("--parallel", type=int, default=1, help="runs at the same time")
    p.add_argument(
        "--through",
        metavar="COMMAND",
        help="start each run with this instead; {name} becomes the run's",
    )
    p.add_argument("--logs", help="folder for what runs print; default: OUT")
    p.add_argument("--table", action="store_true", help="start nothing, compare")
    args = training_command.parse(p)
    if args.parallel < 1:
        p.error("--parallel must be positive")
    if args.env and args.through:
        p.error("--env is the launch script's; put it into --through")
    args.logs = args.logs or args.out
    if "://" in args.logs and not (args.through or args.table):
        p.error("OUT is a bucket; give --logs, a folder for what runs print")
    return args


def start_through(
    sh: shell.Shell, runs: Sequence[sweep_runs.Run], through: str
) -> bool:
    """Start each run with a launch script; whether all could be started."""
    good = True
    for run in runs:
        words = [word.replace("{name}", run.slug) for word in shlex.split(through)]
        good &= sh.status([*words, "--", *run.command]) == 0
    return good


def main() -> int:
    """Read the command line and do it."""
    args = arguments()
    runs = sweep_runs.make(args)
    left = [r for r in runs if sweep_results.saved_step(r.workdir) < r.steps]
    sh = shell.Shell(dry_run=args.dry_run)
    stopped = False
    if not args.table:
        shell.say(f"{len(runs)} runs, {len(runs) - len(left)} of them finished.")
        if args.through:
            good = start_through(sh, left, args.through)
            if not good:
                shell.say("Some runs could not be started; see above.")
        else:
            local = sweep_local.Local(args.logs, args.parallel, args.env)
            if args.dry_run:
                for run in left:
                    sh.run(local.command(run))
            else:
                stopped = local.run(left)
    if args.dry_run:
        return 0
    results = [sweep_results.read(r, args.logs, args.metric, args.best) for r in runs]
    print(sweep_results.write(results, args.out, args.metric), end="")
    if stopped:
        shell.say("Stopped; given again, it goes on.")
        return training_command.STOPPED
    return 0 if all(r.state == "finished" for r in results) else 1


if __name__ == "__main__":
    shell.main("sweep.py", main)
