"""The order of events in a run: restore, batch, step, log, sample, evaluate, save."""

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from imagen_jax import chips, partitioning
from imagen_jax.checkpoints import store
from imagen_jax.training import (
    clock,
    flops,
    layout,
    meter,
    metrics,
    nonfinite,
    profiler,
    progress,
    stopping,
    watchdog,
)
from imagen_jax.training import optimizer as optimizers
from imagen_jax.training import state as training_state
from imagen_jax.training import step as training_step

Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What is trained, as objects.

    Attributes:
      loss: (key, params, frozen, batch) -> ([B] losses, metrics).
      init: key -> parameters, boxed with their logical axes or plain.
      optimizer: an optax transformation.
      schedule: its learning rate, for the log.
      ema_decay: steps done -> decay of the parameters' average.
      make_batches: position -> this process's batches from there on, trees of numpy
        arrays [b, ...]; the position counts the examples that all processes have seen.
      mesh: the devices.
      frozen: arrays that the loss reads and nobody trains.
      sample: (step, ema_params) -> a uint8 picture [H, W, 3].
      evaluate: (step, ema_params) -> numbers by name.
      bad_examples: -> how many examples could not be used so far, by cause.
    """

    loss: training_step.Loss
    init: training_state.Init
    optimizer: optax.GradientTransformation
    schedule: optimizers.Schedule
    ema_decay: training_step.Decay
    make_batches: Callable[[int], Iterator[Tree]]
    mesh: Mesh
    frozen: Tree = None
    sample: Callable[[int, Tree], np.ndarray] | None = None
    evaluate: Callable[[int, Tree], Mapping[str, float]] | None = None
    bad_examples: Callable[[], Mapping[str, int]] = dict


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long, where and how often.

    Attributes:
      workdir: gets `checkpoints/`, `metrics.jsonl`, `samples/`, `tensorboard/`, and
        `profile/` and `stuck/` where there is reason.
      total_steps: the step to end at.
      seed: of the parameters and of every step's random numbers.
      log_every: steps between lines of the log; this and the next three count from
        step 0, and 0 means never.
      save_every: steps between checkpoints; the last step is always saved.
      sample_every: steps between sample pictures.
      evaluate_every: steps between evaluations.
      keep: checkpoints that are kept, the newest.
      accumulation: parts in which a batch is computed.
      kernel_dtype: of the kernels that the loss sees, "float32" or "bfloat16"; see
        `training.step.train_step`.
      max_replicated: the largest share of parameters that may lie whole on each device
        of a mesh that shards them.
      on_nonfinite: "stop", or "skip" the batch and go on.
      max_skipped: so many skipped batches are too many.
      overfit_one_batch: train on the first batch only, to see that it can be learned.
      init_from: begin with the parameters of a workdir or a safetensors file, as far as
        names and shapes agree; a workdir that has checkpoints goes on from them.
      tensorboard: "auto", "clu", "tensorboardX" or "none".
      wandb: the project in Weights & Biases that the same numbers go to; "" for none.
      progress: show a bar, or a line each log where there is no terminal.
      max_minutes: stop, saved, after so long; for machines that are lent in pieces.
      stuck_seconds: a step that takes longer, and longer than many others, is told of;
        0 means never.
      profile_from: the step at which a profile begins; 0 means none.
      profile_steps: steps that it lasts.
    """

    workdir: str
    total_steps: int
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    sample_every: int = 0
    evaluate_every: int = 0
    keep: int = 3
    accumulation: int = 1
    kernel_dtype: str = "float32"
    max_replicated: float = 0.02
    on_nonfinite: str = "stop"
    max_skipped: int = 100
    overfit_one_batch: bool = False
    init_from: str | None = None
    tensorboard: str = "auto"
    wandb: str = ""
    progress: bool = True
    max_minutes: float | None = None
    stuck_seconds: float = 300.0
    profile_from: int = 0
    profile_steps: int = 3

    def __post_init__(self):
        if self.on_nonfinite not in ("stop", "skip"):
            raise ValueError(
                f"LoopSettings: on_nonfinite must be 'stop' or 'skip', "
                f"got {self.on_nonfinite!r}."
            )
        if self.kernel_dtype not in ("float32", "bfloat16"):
            raise ValueError(
                f"LoopSettings: kernel_dtype must be 'float32' or 'bfloat16', got "
                f"{self.kernel_dtype!r}."
            )
        for name in ("total_steps", "keep", "accumulation", "profile_steps"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"LoopSettings: {name} must be at least 1, "
                    f"got {getattr(self, name)}."
                )
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ValueError(
                f"LoopSettings: max_minutes must be positive, got {self.max_minutes}."
            )
        if self.max_minutes is not None and jax.process_count() > 1:
            raise ValueError(
                "LoopSettings: max_minutes is for one process; the clocks of several "
                "differ. Let the scheduler send SIGTERM."
            )


def train(run: TrainingRun, settings: LoopSettings) -> training_state.TrainState:
    """Train until `total_steps`, or until time is up or the process is told to end.

    A run that ends at any moment, killed included, goes on from its last checkpoint
    when it is started again, and comes to bit for bit the same parameters on the same
    number of devices.

    Raises:
      nonfinite.NonFiniteLoss: see `LoopSettings.on_nonfinite`. What was saved is sound.
      checkpoints.store.CheckpointError: if the newest checkpoint cannot be read or is
        another model's.
    """
    first_process = jax.process_index() == 0
    time = clock.Clock()
    with contextlib.ExitStack() as stack:
        stack.enter_context(partitioning.use(run.mesh))
        checkpoints = stack.enter_context(
            store.Store(
                epath.Path(settings.workdir) / "checkpoints", keep=settings.keep
            )
        )
        must_stop = stack.enter_context(
            stopping.early(settings.max_minutes, checkpoints.preempted)
        )
        watch = stack.enter_context(
            watchdog.Watchdog(time, settings.workdir, seconds=settings.stuck_seconds)
        )
        profile = stack.enter_context(
            profiler.Window(
                settings.workdir,
                first=settings.profile_from,
                steps=settings.profile_steps,
            )
        )

        init_key, key = jax.random.split(jax.random.key(settings.seed))
        state, position = begin(init_key, run, settings, checkpoints)
        start, seen = int(state.step), int(position["examples_seen"])
        time.go_on(position.get("clock", {}))
        bar = progress.Progress(
            start, settings.total_steps, show=settings.progress and first_process
        )
        stack.callback(bar.close)
        if start >= settings.total_steps:
            bar.say(f"Nothing to do: the run ends at step {settings.total_steps}.")
            return state

        batches = run.make_batches(0 if settings.overfit_one_batch else seen)
        stack.callback(getattr(batches, "close", lambda: None))
        first = next(batches)
        if settings.overfit_one_batch:
            batches = itertools.repeat(first)
        else:
            batches = itertools.chain([first], batches)
        examples = jax.tree.leaves(first)[0].shape[0] * jax.process_count()

        frozen = partitioning.place(run.mesh, run.frozen)
        bar.say(layout.describe(run.mesh, state, frozen))
        with partitioning.without_rules():  # one process's share of a batch
            work = flops.count(run.loss, key, state.params, frozen, first, trained=1)
        step = training_step.compiled(
            run.mesh,
            state,
            loss=run.loss,
            optimizer=run.optimizer,
            ema_decay=run.ema_decay,
            accumulation=settings.accumulation,
            kernel_dtype=settings.kernel_dtype,
        )
        log = _log(settings, start) if first_process else None
        stack.callback(log.close if log else lambda: None)
        meters = meter.Meter(
            time,
            examples=examples,
            flops=work.training * jax.process_count(),
            chips=run.mesh.size,
            peak=chips.peak(run.mesh.devices.flat[0].device_kind),
        )
        guard = nonfinite.Guard(
            stop=settings.on_nonfinite == "stop", max_skipped=settings.max_skipped
        )
        pending: tuple[int, training_step.Metrics] | None = None

        def read(number, device_metrics):
            """Wait for the end of a step, and count it."""
            meters.add(guard.read(number, device_metrics))
            watch.ended(number)
            if number == start + 1:
                time.begin_steps()
                meters.restart()

        for done in range(start + 1, settings.total_steps + 1):
            with time.doing("data", hidden=functools.partial(_busy, pending)):
                batch = next(batches, None)
            if batch is None:
                raise ValueError(f"Training: the data ended after step {done - 1}.")
            profile.at(done, state)
            batch = partitioning.place_batch(run.mesh, batch)
            state, device_metrics = step(key, state, frozen, batch)
            seen += examples

            # The metrics of a step are read while the next one runs ...
            if pending is not None:
                read(*pending)
            pending = (done, device_metrics)
            last = done == settings.total_steps
            stopping_now = must_stop(done)
            log_now, save_now, sample_now, evaluate_now = (
                bool(every) and (last or done % every == 0)
                for every in (
                    settings.log_every,
                    settings.save_every,
                    settings.sample_every if run.sample else 0,
                    settings.evaluate_every if run.evaluate else 0,
                )
            )
            save_now = save_now or last or stopping_now
            # ... but before anything is written: a bad step is never behind a
            # checkpoint that is kept as good.
            if log_now or save_now or sample_now or evaluate_now:
                read(*pending)
                pending = None

            with time.doing("other"):
                if log_now:
                    record = meters.summary() | {
                        "learning_rate": np.asarray(run.schedule(done - 1)).item(),
                        "examples_seen": seen,
                        "skipped": guard.skipped,
                        **time.lost(),
                        **{f"bad_{k}": n for k, n in run.bad_examples().items()},
                    }
                    bar.record(done, record)
                    if log:
                        log.scalars(done, record)
                # After its line: a kill in between costs a step, not a line.
                if save_now:
                    with time.doing("checkpoints"):
                        position = {"examples_seen": seen, "clock": time.totals()}
                        checkpoints.save(done, state, position)
                if sample_now and run.sample:
                    image = run.sample(done, state.ema_params)
                    if log:
                        log.image(done, "samples", image)
                if evaluate_now and run.evaluate:
                    values = run.evaluate(done, state.ema_params)
                    if log:
                        log.scalars(done, values)
            bar.advance()
            if stopping_now:
                bar.say(
                    f"Stopped at step {done}; started again, it goes on from there."
                )
                break
        return state


def begin(
    key: jax.Array,
    run: TrainingRun,
    settings: LoopSettings,
    checkpoints: store.Store,
) -> tuple[training_state.TrainState, dict[str, Any]]:
    """The state to go on from and what was saved beside it: restored, filled or new."""
    target = training_state.abstract(run.mesh, run.init, run.optimizer)
    layout.check(run.mesh, target.params, settings.max_replicated)
    if checkpoints.latest_step() is not None:
        return checkpoints.restore(target)
    state = training_state.create(key, run.mesh, run.init, run.optimizer)
    if settings.init_from:
        params, report = training_state.fill(
            state.params, training_state.read_source(settings.init_from)
        )
        if jax.process_index() == 0:
            print(f"{settings.init_from}: {report}", file=sys.stderr)
        # A copy: the step donates both trees, so they must not share their arrays.
        ema_params = jax.tree.map(jax.numpy.copy, params)
        state = state._replace(params=params, ema_params=ema_params)
    return state, {"examples_seen": 0}


def _log(settings: LoopSettings, start: int) -> metrics.Log:
    return metrics.Log(
        settings.workdir,
        step=start,
        tensorboard=settings.tensorboard,
        wandb=settings.wandb,
    )


def _busy(pending: tuple[int, Mapping[str, Any]] | None) -> bool:
    """Whether the devices are still at a step that was given to them."""
    return pending is not None and not pending[1]["loss"].is_ready()
