"""Trained weights out of their working directories: what `imagen-jax export` writes."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from imagen_jax import build, hub, loading
from imagen_jax.cascade import cascade
from imagen_jax.checkpoints import manifest, model_directory, store
from imagen_jax.data import tasks
from imagen_jax.evaluation import composition, scorer_suite

SCORER_PICTURES = 5000  # held-out real ones, on which an exported scorer is measured
LOSS_BATCH, LOSS_BATCHES = 32, 16  # held-out, to measure what storing has cost

# What the config group `text` says where it does not.
TEXT = {"cleaning": "", "unmasked": False, "extra_ids": 0, "tokenizer_options": {}}


def export(workdirs: Sequence[str], out: str, *, dtype: str, part: str) -> int:
    """Put trained stages and their text encoder into a model directory.

    Returns:
      Its size in bytes.
    """
    configs = [build.read_config(workdir) for workdir in workdirs]
    if configs[0].kind == "scorer":
        return export_scorer(workdirs[0], out, dtype=dtype, part=part)
    cascade.Cascade(stages=tuple(build.make_stage(config) for config in configs))
    trees = {"text": build.text_params(configs[0])}
    for workdir, config in zip(workdirs, configs, strict=True):
        if config.text.encoder != configs[0].text.encoder:
            raise ValueError(
                f"export: {workdir} was trained with another text encoder than "
                f"{workdirs[0]}."
            )
        trees[config.name] = store.load(epath.Path(workdir) / "checkpoints", part)
    exported = [portable(config) for config in configs]
    size = model_directory.write(
        out,
        [config.to_dict() for config in exported],
        trees,
        dtype,
        tasks.words(build.make_source(configs[0], "train")),
    )
    for file, name in tokenizer_names(configs[0]).items():
        shutil.copyfile(file, pathlib.Path(out) / name)
    return size


def append(
    model: str, workdirs: Sequence[str], out: str, *, dtype: str, part: str
) -> int:
    """Put trained stages behind those of a model, such as a converted one.

    Args:
      model: a shipped model, a model directory or hf://...; its files are copied.
      workdirs: of the stages, which begin at the resolution of the model's last one.
      out: the new model directory.
      dtype: of the new stages' stored parameters.
      part: "params" or "ema_params".

    Returns:
      Its size in bytes.

    Raises:
      ValueError: if the stages do not join, have other texts, or `out` is a model.
    """
    folder, target = hub.model_folder(model), pathlib.Path(out)
    described, before = model_directory.read(folder), loading.stage_configs(folder)
    configs = [build.read_config(workdir) for workdir in workdirs]
    stages = tuple(build.make_stage(config) for config in [*before, *configs])
    cascade.Cascade(stages=stages)
    if len({stage.name for stage in stages}) < len(stages):
        raise ValueError(f"export: {model} has a stage of the same name.")
    for workdir, config in zip(workdirs, configs, strict=True):
        if read_as(config) != read_as(before[0]):
            raise ValueError(
                f"export: {workdir} was trained with another text encoder or tokenizer "
                f"than {model} has."
            )
    if (target / "model.json").exists():
        raise ValueError(f"--out: {out} already holds a model; give a new directory.")
    target.mkdir(parents=True, exist_ok=True)
    old = manifest.read(folder) or {"origin": {}, "files": {}}
    files = dict(old["files"])
    for path in folder.iterdir():
        if path.name not in ("model.json", manifest.NAME) and path.is_file():
            shutil.copyfile(path, target / path.name)
            files.setdefault(path.name, manifest.entry(path))
    for workdir, config in zip(workdirs, configs, strict=True):
        tree = store.load(epath.Path(workdir) / "checkpoints", part)
        model_directory.write_parameters(target, config.name, tree, dtype)
        name = f"{config.name}.safetensors"
        files[name] = manifest.entry(target / name)
    exported = [portable(config).to_dict() for config in configs]
    text = model_directory.describe([*described.stages, *exported])
    files["model.json"] = manifest.entry_of(text.encode())
    manifest.write(target, old["origin"], files)
    (target / "model.json").write_text(text)
    return sum(path.stat().st_size for path in target.iterdir())


def read_as(config: build.Config) -> tuple[Any, dict[str, Any]]:
    """How a stage reads its text, wherever the encoder's files lie."""
    text = {**TEXT, **config.text.to_dict()}
    for name in ("encoder", "weights", *loading.TOKENIZERS):
        text.pop(name, None)
    return build.make_text_module(config).clone(dtype="float32"), text


def tokenizer_names(config: build.Config) -> dict[pathlib.Path, str]:
    """The tokenizer's files, and their names in a model directory."""
    files = build.tokenizer_files(config)
    if config.text.tokenizer == "sentencepiece":
        return {file: "spiece.model" for file in files}
    return {file: file.name for file in files}


def portable(config: build.Config) -> build.Config:
    """The config as a model directory holds it: no paths of the machine it is from."""
    config = config.copy_and_resolve_references()
    config.text.weights = ""
    if config.text.get("sentencepiece", ""):
        config.text.sentencepiece = "spiece.model"
    if config.text.get("tokenizer_file", ""):
        config.text.tokenizer_file = pathlib.Path(config.text.tokenizer_file).name
    if "pictures" in config.data:
        config.data.pictures.path = config.data.pictures.index = ""
        config.data.embeddings = ""
    return config


def stored_losses(
    workdirs: Sequence[str], model: str, part: str
) -> Iterator[tuple[str, float, float]]:
    """What storing has cost: (stage, loss as trained, loss as stored), held out.

    The mean over the same examples, times and noise, text encoder included.
    """
    for workdir in workdirs:
        config, checkpoints = (
            build.read_config(workdir),
            epath.Path(workdir) / "checkpoints",
        )
        module, stored = build.make_stage(config), config.copy_and_resolve_references()
        stored.text.weights = model
        trees = (
            (store.load(checkpoints, part), build.text_params(config)),
            (
                loading.stage_params(hub.model_folder(model), module),
                build.text_params(stored),
            ),
        )
        reader = dataclasses.replace(
            build.make_reader(config),
            source=build.make_source(config, "heldout"),
            batch_size=LOSS_BATCH,
            host_index=0,
            host_count=1,
        )
        loss = jax.jit(lambda *args, m=module: jnp.mean(m.loss(*args)[0]))
        sums = [0.0, 0.0]
        for i in range(LOSS_BATCHES):
            batch = reader.batch(reader.indices(0, i))
            key = jax.random.fold_in(jax.random.key(0), i)
            for k, (params, text) in enumerate(trees):
                sums[k] += float(loss(key, params, text, batch))
        yield config.name, sums[0] / LOSS_BATCHES, sums[1] / LOSS_BATCHES


def export_scorer(workdir: str, out: str, *, dtype: str, part: str) -> int:
    """Put a trained scorer into a directory, with its measured accuracy.

    Returns:
      Its size in bytes.
    """
    config = build.read_config(workdir)
    params = store.load(epath.Path(workdir) / "checkpoints", part)
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    model_directory.write_parameters(folder, "scorer", params, dtype)
    task = build.make_detection_task(config)
    stored = model_directory.parameters(folder, "scorer")(build.shapes_of(task.init))
    report = scorer_suite.run(composition.Scorer(task, stored), SCORER_PICTURES)
    description = {
        "config": {
            "network": config.network.to_dict(),
            "stage": config.stage.to_dict(),
        },
        "names": loading.scorer_names(),
        "accuracy": report.counts,
    }
    (folder / "scorer.json").write_text(json.dumps(description) + "\n")
    return sum(f.stat().st_size for f in folder.iterdir())
