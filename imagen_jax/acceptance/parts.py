"""The parts of `imagen-jax accept`: each is run in a process of its own.

A part returns plain values and, under "passed", whether they are as they should be. It
runs on all devices of this machine, or, where several hosts have joined, of all of
them; numbers and pictures are then each host's own.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from imagen_jax import distributed

Result = dict[str, Any]
# What the step and the numerics are measured with: on a CPU what can be had in minutes.
CONFIGS = {"cpu": ("emoji/base", 32)}
CONFIG = ("imagen/base_64_300m", 8)  # and its batch, a device
# Of the run that is killed.
STEPS, SAVE_EVERY, KILL_AFTER = 24, 6, 14
PICTURES = 48
RIGHT = 0.8
SHEET = "samples.png"
# bfloat16 has 8 bits: one product is off by 0.2 %, a whole network's loss by more.
LOSS_OFF = 0.05


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a part works.

    Attributes:
      folder: of this host.
      shared: of all hosts, for checkpoints.
      joining: flags by which a process finds those of the other hosts; none alone.
    """

    folder: pathlib.Path
    shared: epath.Path
    joining: tuple[str, ...] = ()


def machine(place: Place) -> Result:
    """What this is."""
    del place
    import jax

    device = jax.devices()[0]
    return {
        "passed": True,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "hosts": jax.process_count(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "backend": device.client.platform_version.splitlines()[0],
    }


def step(place: Place) -> Result:
    """A training step: what the compiler planned against what the device did."""
    del place
    import jax

    from imagen_jax.benchmark import timing
    from imagen_jax.commands import configs

    name, batch = CONFIGS.get(jax.default_backend(), CONFIG)
    if name == CONFIG[0]:
        batch *= jax.device_count()
    config = configs.load(name)
    found = timing.measure(name, config, "train", batch=batch, runs=5, warmup=2)
    told = found.json()
    planned, measured = found.planned_bytes, found.measured_bytes
    near = measured is None or measured <= 1.1 * planned
    off = {"error": "the device used over a tenth more memory than was planned"}
    at_peak = None if found.peak is None else found.flops / found.peak
    return {
        "passed": bool(near),
        "seconds_at_peak": at_peak,
        **({} if near else off),
        **told,
    }


def numerics(place: Place) -> Result:
    """The shipped base's loss in bfloat16 against float32, same pictures and noise."""
    del place
    import jax
    import numpy as np

    from imagen_jax import build, hub, loading

    model, found = hub.model_folder("emoji"), {}
    for dtype in ("float32", "bfloat16"):
        config = loading.stage_configs(model)[0]
        config.network.dtype = config.text.encoder.dtype = dtype
        config.text.weights = "emoji"
        module, reader = build.make_stage(config), build.make_reader(config)
        params = loading.stage_params(model, module)
        text = build.text_params(config)
        batch = reader.batch(reader.indices(0, 0))
        # A TPU multiplies float32 in bfloat16 unless it is told not to.
        with jax.default_matmul_precision("highest" if dtype == "float32" else None):
            losses, _ = jax.jit(module.loss)(jax.random.key(0), params, text, batch)
        found[dtype] = np.asarray(losses, np.float64)
    exact, off = found["float32"], found["bfloat16"] - found["float32"]
    relative = float(np.sqrt(np.mean(off**2) / np.mean(exact**2)))
    return {
        "passed": bool(np.isfinite(relative) and relative <= LOSS_OFF),
        "loss_float32": float(exact.mean()),
        "loss_bfloat16": float(found["bfloat16"].mean()),
        "relative_difference": relative,
        "allowed": LOSS_OFF,
    }


def resume(place: Place) -> Result:
    """A run that is killed and goes on, against one that is not."""
    whole, killed = place.shared / "whole", place.shared / "killed"
    for workdir in (whole, killed):  # of an attempt that did not end
        if workdir.exists() and place.joining:
            # No host may clear it while another writes there.
            raise RuntimeError(f"{workdir} exists; give a new folder as --shared")
        if workdir.exists():
            workdir.rmtree()
    finish(whole, place.joining)
    # The host that sees the step first kills its process, and the others' end with it.
    ends = (-signal.SIGKILL, *[distributed.LOST_ANOTHER] * bool(place.joining))
    if run_training(killed, place.joining, kill_after=KILL_AFTER) not in ends:
        raise RuntimeError("the training ended before it could be killed")
    before = steps_logged(killed)
    finish(killed, place.joining)

    os.environ["JAX_PLATFORMS"] = "cpu"  # the arrays are only compared
    import jax
    import numpy as np

    from imagen_jax.checkpoints import store

    trees = [store.load(where / "checkpoints", "params") for where in (whole, killed)]
    leaves = [[np.asarray(a) for a in jax.tree.leaves(tree)] for tree in trees]
    off = max(float(np.abs(a - b).max()) for a, b in zip(*leaves, strict=True))
    return {
        "passed": off <= 1e-3,
        "killed_at_step": before,
        "steps": STEPS,
        "saved_every": SAVE_EVERY,
        "largest_difference": off,
        "bit_for_bit": off == 0.0,
    }


def training_command(workdir: epath.Path, joining: Sequence[str]) -> list[str]:
    """A short training of the shipped base's config, text encoder included."""
    return [
        *(sys.executable, "-m", "imagen_jax", "train", "--config", "emoji/base"),
        *("--workdir", str(workdir), "--config.text.weights=emoji"),
        f"--config.training.steps={STEPS}",
        f"--config.training.save_every={SAVE_EVERY}",
        "--config.optimizer.warmup_steps=4",
        "--config.training.log_every=1",
        "--config.training.sample_every=0",
        "--config.training.tensorboard=none",
        *joining,
    ]


def finish(workdir: epath.Path, joining: Sequence[str] = ()) -> None:
    """Train to the end."""
    status = run_training(workdir, joining)
    if status:
        raise RuntimeError(f"the training in {workdir.name} ended with {status}")


def run_training(
    workdir: epath.Path, joining: Sequence[str] = (), kill_after: int = 0
) -> int:
    """Train to the end, or SIGKILL the process once it has logged so many steps."""
    process = subprocess.Popen(training_command(workdir, joining))
    while kill_after and process.poll() is None and steps_logged(workdir) < kill_after:
        time.sleep(0.1)
    if kill_after and process.poll() is None:
        process.kill()
    return process.wait()


def steps_logged(workdir: epath.PathLike) -> int:
    """The last step in a run's log."""
    log = epath.Path(workdir) / "metrics.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def samples(place: Place) -> Result:
    """Pictures of held-out prompts by the shipped cascade, and how many are right."""
    import numpy as np

    from imagen_jax import loading
    from imagen_jax.cascade.contact_sheet import contact_sheet
    from imagen_jax.evaluation import composition_suite

    judge, recorded = loading.load_scorer()
    out = place.folder / "samples"
    report = composition_suite.run(
        loading.load("emoji"), judge, recorded, num=PICTURES, out=out
    )
    scenes = composition_suite.prompts(PICTURES, seed=0)[: composition_suite.CHUNK]
    first = np.load(out / "pictures" / "0000.npy")
    sheet = contact_sheet(first, [scene.caption for scene in scenes], cell=192)
    sheet.save(place.folder / SHEET)
    rows = {row.name: row.numbers() for row in report.rows}
    return {
        "passed": rows["all"]["share"] >= RIGHT,
        "least": RIGHT,
        **{name: numbers["share"] for name, numbers in rows.items()},
    }


PARTS: dict[str, Callable[[Place], Result]] = {
    "machine": machine,
    "step": step,
    "numerics": numerics,
    "resume": resume,
    "samples": samples,
}
# Parts that join no other host themselves; the processes that they start do.
APART = ("resume",)
