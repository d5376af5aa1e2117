"""The order of events in a run: restore, batch, step, log, sample, evaluate, save."""

import contextlib
import dataclasses
import itertools
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from imagen_jax import partitioning
from imagen_jax.checkpoints import store
from imagen_jax.training import flops, layout, metrics, progress
from imagen_jax.training import optimizer as optimizers
from imagen_jax.training import state as training_state
from imagen_jax.training import step as training_step

Tree = Any


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient became infinite or not a number."""


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
      workdir: gets `checkpoints/`, `metrics.jsonl`, `samples/`, `tensorboard/`.
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
      progress: show a bar, or a line each log where there is no terminal.
      max_minutes: stop, saved, after so long; for machines that are lent in pieces.
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
    progress: bool = True
    max_minutes: float | None = None

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
        for name in ("total_steps", "keep", "accumulation"):
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
      NonFiniteLoss: see `LoopSettings.on_nonfinite`. What was saved is sound.
      checkpoints.store.CheckpointError: if the newest checkpoint cannot be read or is
        another model's.
    """
    first_process = jax.process_index() == 0
    deadline = time.monotonic() + 60 * (settings.max_minutes or math.inf)
    with contextlib.ExitStack() as stack:
        stack.enter_context(partitioning.use(run.mesh))
        told_to_stop = stack.enter_context(_stop_signals())
        checkpoints = stack.enter_context(
            store.Store(
                epath.Path(settings.workdir) / "checkpoints", keep=settings.keep
            )
        )

        init_key, key = jax.random.split(jax.random.key(settings.seed))
        state, seen = begin(init_key, run, settings, checkpoints)
        start = int(state.step)
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
        work = work * jax.process_count()
        step = training_step.compiled(
            run.mesh,
            state,
            loss=run.loss,
            optimizer=run.optimizer,
            ema_decay=run.ema_decay,
            accumulation=settings.accumulation,
            kernel_dtype=settings.kernel_dtype,
        )
        log = None
        if first_process:
            log = metrics.Log(
                settings.workdir, step=start, tensorboard=settings.tensorboard
            )
            stack.callback(log.close)
        meter = metrics.Meter()
        guard = _NonFiniteGuard(settings)
        pending = None

        for done in range(start + 1, settings.total_steps + 1):
            with meter.waiting():
                batch = next(batches, None)
                if batch is None:
                    raise ValueError(f"Training: the data ended after step {done - 1}.")
                batch = partitioning.place_batch(run.mesh, batch)
            state, device_metrics = step(key, state, frozen, batch)
            seen += examples

            # The metrics of a step are read while the next one runs ...
            if pending is not None:
                meter.add(guard.read(*pending))
                if done == start + 2:
                    meter.restart()
            pending = (done, device_metrics)
            last = done == settings.total_steps
            stopping = (
                told_to_stop()
                or time.monotonic() > deadline
                or (jax.process_count() > 1 and checkpoints.preempted(done))
            )
            log_now, save_now, sample_now, evaluate_now = (
                bool(every) and (last or done % every == 0)
                for every in (
                    settings.log_every,
                    settings.save_every,
                    settings.sample_every if run.sample else 0,
                    settings.evaluate_every if run.evaluate else 0,
                )
            )
            save_now = save_now or last or stopping
            # ... but before anything is written: a bad step is never behind a
            # checkpoint that is kept as good.
            if log_now or save_now or sample_now or evaluate_now:
                meter.add(guard.read(*pending))
                pending = None

            record = {}
            if log_now:
                record = meter.summary(examples=examples, flops=work.training)
            with meter.paused():
                if log_now:
                    record |= {
                        "learning_rate": np.asarray(run.schedule(done - 1)).item(),
                        "examples_seen": seen,
                        "skipped": guard.skipped,
                        **{f"bad_{k}": n for k, n in run.bad_examples().items()},
                    }
                    bar.record(done, record)
                    if log:
                        log.scalars(done, record)
                # After its line: a kill in between costs a step, not a line.
                if save_now:
                    checkpoints.save(done, state, {"examples_seen": seen})
                if sample_now and run.sample:
                    image = run.sample(done, state.ema_params)
                    if log:
                        log.image(done, "samples", image)
                if evaluate_now and run.evaluate:
                    values = run.evaluate(done, state.ema_params)
                    if log:
                        log.scalars(done, values)
            bar.advance()
            if stopping:
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
) -> tuple[training_state.TrainState, int]:
    """The state to go on from and the position in the data: restored, filled or new."""
    target = training_state.abstract(run.mesh, run.init, run.optimizer)
    layout.check(run.mesh, target.params, settings.max_replicated)
    if checkpoints.latest_step() is not None:
        state, position = checkpoints.restore(target)
        return state, int(position["examples_seen"])
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
    return state, 0


class _NonFiniteGuard:
    """Fetches metrics, and decides what a step that is not finite means."""

    def __init__(self, settings: LoopSettings):
        self._settings = settings
        self.skipped = 0

    def read(self, step: int, device_metrics: Mapping[str, Any]) -> dict[str, float]:
        values = {k: float(v) for k, v in jax.device_get(device_metrics).items()}
        if not values.pop("nonfinite"):
            return values
        self.skipped += 1
        what = (
            f"Training: loss {values['loss']:g} with gradient norm "
            f"{values['grad_norm']:g} in step {step}"
        )
        if self._settings.on_nonfinite == "stop":
            raise NonFiniteLoss(
                f"{what}. No checkpoint holds it. Lower the learning rate or clip "
                "gradients, then start again; or let such batches be skipped "
                "(on_nonfinite = 'skip')."
            )
        if self.skipped > self._settings.max_skipped:
            raise NonFiniteLoss(
                f"{what}, one skipped batch more than max_skipped = "
                f"{self._settings.max_skipped}. Lower the learning rate or clip "
                "gradients."
            )
        print(f"{what}; this batch is skipped.", file=sys.stderr)
        return values


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn a first SIGTERM or SIGINT into a flag; a second one ends the process.

    With several processes JAX's preemption service sees to it that all of them stop at
    the same step; a flag of one process would leave the others waiting.
    """
    told = []
    main = threading.current_thread() is threading.main_thread()
    if not main or jax.process_count() > 1:
        yield lambda: False
        return

    def note(number, frame):
        told.append(number)
        signal.signal(number, before[number])

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
