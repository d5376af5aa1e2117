"""From plain values to objects: the only reader of config keys.

One short function a part. A key that no part knows, or that a part needs and does not
find, is an error naming it.
"""

import hashlib
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import ml_collections
import numpy as np
from etils import epath
from jax.sharding import Mesh

from imagen_jax import constructing, hub, partitioning, tokenizers
from imagen_jax.cascade import recipe, stage
from imagen_jax.checkpoints import model_directory, safetensors, store
from imagen_jax.data import (
    collection,
    embeddings,
    emoji,
    picture_task,
    readers,
    sprites,
    tasks,
)
from imagen_jax.diffusion import (
    grids,
    guidance_weights,
    losses,
    noise,
    prediction,
    schedules,
)
from imagen_jax.evaluation import composition, detection, grid, scorer_suite
from imagen_jax.models import (
    bert,
    clip,
    deepfloyd_unet,
    detector,
    efficient_unet,
    t5,
    unet,
)
from imagen_jax.published import placing
from imagen_jax.text import encoder, pretraining, tokenizer
from imagen_jax.training import loop, optimizer, step

NETWORKS = {
    "unet": unet.UNet,
    "efficient_unet": efficient_unet.EfficientUNet,
    "deepfloyd": deepfloyd_unet.DeepFloydUNet,
}
TEXT_NETWORKS = {"t5": t5.T5Encoder, "clip": clip.CLIPText, "bert": bert.BERT}

# An ml_collections.ConfigDict; to a type checker its every key is a union of all plain
# types, which says less than nothing.
Config: TypeAlias = Any


def make_tokenizer(config: Config) -> tokenizer.Tokenizer:
    """The tokenizer of `config.text`."""
    return tokenizers.make(config.text)


def tokenizer_files(config: Config) -> list[pathlib.Path]:
    """The files that the tokenizer of `config.text` reads, the one it names first."""
    return tokenizers.files(config.text)


def make_text_module(config: Config) -> Any:
    """The text encoder's network of `config.text`, a `TextNetwork`.

    Older models and T5's configs do not say its type.
    """
    return constructing.typed(
        TEXT_NETWORKS, "text.encoder", {"type": "t5", **config.text.encoder}
    )


def make_text_encoder(config: Config) -> encoder.TextEncoder:
    """Tokenizer and network together."""
    return encoder.TextEncoder(
        module=make_text_module(config),
        tokenizer=make_tokenizer(config),
        length=config.text.length,
        unmasked=config.text.get("unmasked", False),
    )


def make_stage(config: Config) -> stage.Stage:
    """The stage that a config of kind "stage" describes."""
    diffusion, module = config.diffusion, make_text_module(config)
    schedule = constructing.typed(
        schedules.KINDS, "diffusion.schedule", diffusion.schedule
    )
    discrete = isinstance(schedule, schedules.DiscreteSchedule)
    return stage.Stage(
        name=config.name,
        network=constructing.typed(NETWORKS, "network", config.network),
        schedule=schedule,
        noise_input=schedule.time if discrete else noise.cosine_time,
        parameterization=prediction.by_name(diffusion.parameterization),
        resolution=config.stage.resolution,
        low_resolution=config.stage.low_resolution or None,
        text_dim=module.d_model,
        text_length=config.text.length,
        encoder=module,
        unmasked=config.text.get("unmasked", False),
        weight=losses.by_name(diffusion.weight),
        stratified=diffusion.stratified,
        text_drop=diffusion.text_drop,
        aug_schedule=constructing.typed(
            schedules.KINDS, "diffusion.aug_schedule", diffusion.aug_schedule
        ),
        # Older models lack these.
        aug_max=diffusion.get("aug_max", 1.0),
        blur_max=diffusion.get("blur_max", 0.0),
        enlargement=diffusion.get("enlargement", "noised_bicubic"),
        null_text=diffusion.get("null_text", "zeros"),
    )


def make_recipe(config: Config) -> recipe.SamplingRecipe:
    """The sampling recipe of `config.sampling`."""
    values = dict(config.sampling)
    values["solver"] = recipe.make_solver(**values["solver"])
    named = values.get("grid", "uniform")
    named = {"name": named} if isinstance(named, str) else named
    values["grid"] = grids.by_name(**named)
    values["guidance_schedule"] = guidance_weights.by_name(
        values.get("guidance_schedule", "constant")
    )
    return constructing.construct(recipe.SamplingRecipe, "sampling", values)


def make_text_task(
    config: Config,
) -> pretraining.MaskedTokenTask | pretraining.ContrastiveTask:
    """The text encoder's pretraining of a config of kind "text"."""
    module = make_text_module(config)
    if not isinstance(module, t5.T5Encoder):
        raise ValueError(
            "config.text.encoder.type: a text encoder is trained as 't5', got "
            f"{config.text.encoder.type!r}."
        )
    values = {"encoder": module, **config.pretraining}
    objective = values.pop("objective", "masked_tokens")
    if objective == "contrastive":
        return constructing.construct(
            pretraining.ContrastiveTask, "pretraining", values
        )
    if objective != "masked_tokens":
        raise ValueError(
            "config.pretraining.objective: must be 'masked_tokens' or 'contrastive', "
            f"got {objective!r}."
        )
    if config.text.tokenizer == "sentencepiece":
        # Every piece is a word or nearly; what is hidden looks like an unknown word.
        values |= {"mask_id": tokenizer.UNK, "separators": (), "word_tokens": 1}
    return constructing.construct(pretraining.MaskedTokenTask, "pretraining", values)


def make_detection_task(config: Config) -> detection.DetectionTask:
    """The scorer's training of a config of kind "scorer"."""
    sizes = {
        "num_classes": len(sprites.names()) + 1,  # and what is none of them
        "num_backgrounds": len(emoji.BACKGROUNDS),
    }
    return detection.DetectionTask(
        module=constructing.construct(
            detector.Detector, "network", {**sizes, **config.network}
        ),
        resolution=config.stage.resolution,
    )


def param_counts(config: Config) -> dict[str, dict[str, int]]:
    """Parameters by top-level module, of the trained and of the frozen network."""
    key = jax.random.key(0)
    if config.kind != "stage":
        task = make_text_task if config.kind == "text" else make_detection_task
        return {
            "network": count(jax.eval_shape(task(config).init, key)),
            "text encoder (frozen)": {},
        }
    text = encoder_init(make_text_module(config), config.text.length)
    return {
        "network": count(jax.eval_shape(make_stage(config).init, key)),
        "text encoder (frozen)": count(jax.eval_shape(text, key)),
    }


def count(tree: Any) -> dict[str, int]:
    """Numbers of scalars under each top-level name."""
    return {
        name: sum(leaf.size for leaf in jax.tree.leaves(sub))
        for name, sub in tree.items()
    }


def encoder_init(module: encoder.TextNetwork, length: int):
    """A function key -> the text encoder's boxed parameters."""
    ids = jax.numpy.zeros((1, length), int)
    return lambda key: module.init(key, ids, ids == 0)["params"]


def shapes_of(init: Callable[[jax.Array], Any]) -> Any:
    """The shapes of the parameters that an init function would make."""
    return partitioning.unbox(jax.eval_shape(init, jax.random.key(0)))


def text_params(
    config: Config,
    place: Callable[[str, np.ndarray], Any] = model_directory.float32,
) -> Any:
    """The trained parameters of the text encoder, from `config.text.weights`.

    They come from the working directory of a config of kind "text", from a model
    directory, or from a shipped model's name, one at a time.

    Args:
      config: of a stage, or of anything else with a group `text`.
      place: (parameter's name, array) -> what becomes of it.
    """
    where = config.text.weights
    if not where:
        raise ValueError(
            "config.text.weights: a trained text encoder is required, got ''. Train "
            "one with `imagen-jax train --config text/byte_t5 --workdir DIR` and give "
            "--config.text.weights=DIR."
        )
    module = make_text_module(config)
    shapes = shapes_of(encoder_init(module, config.text.length))
    checkpoints = epath.Path(where) / "checkpoints"
    if checkpoints.exists():
        stored = safetensors.flatten(store.load(checkpoints, "ema_params")["encoder"])
        return safetensors.unflatten({n: place(n, a) for n, a in stored.items()})
    return model_directory.parameters(hub.model_folder(where), "text", place)(shapes)


def frozen_params(config: Config, mesh: Mesh) -> Any:
    """The text encoder's parameters on the mesh, split as the table of axes says.

    Each goes to its place when it is read; no host holds more than one at a time.
    """
    module = make_text_module(config)
    boxed = jax.eval_shape(encoder_init(module, config.text.length), jax.random.key(0))
    return text_params(config, placing.placing(mesh, boxed, module.dtype))


def text_identity(config: Config, params: Any) -> str:
    """A hash of what decides a caption's embedding: pieces, network and parameters."""
    digest = hashlib.sha256()
    text = config.text
    for file in tokenizer_files(config):
        digest.update(file.read_bytes())
    shape = {**text.encoder.to_dict(), "tokenizer": text.tokenizer}
    if text.tokenizer in tokenizers.OTHERS:
        shape["options"] = dict(text.get("tokenizer_options", {}))
    # What older models lack is told only where it is used: their caches stay valid.
    told = {name: text.get(name) for name in ("cleaning", "unmasked", "extra_ids")}
    shape |= {name: value for name, value in told.items() if value}
    digest.update(json.dumps(shape, sort_keys=True).encode())
    for name, leaf in sorted(safetensors.flatten(params).items()):
        digest.update(name.encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def make_source(config: Config, split: str) -> tasks.Source:
    """The examples of `config.data.task`: "train" or "heldout"."""
    if config.data.task != "pictures":
        return tasks.by_name(config.data.task, split)
    if "pictures" not in config.data:
        raise ValueError(
            "config.data.pictures: required by data.task = 'pictures'; begin with a "
            "config of configs/pictures."
        )
    settings = constructing.construct(
        picture_task.PictureSettings, "data.pictures", config.data.pictures
    )
    return picture_task.source(
        settings,
        split,
        resolution=config.stage.resolution if "stage" in config else 0,
        batch_size=config.data.batch_size,
    )


def make_cache(config: Config, params: Any) -> embeddings.Cache | None:
    """The embeddings of `config.data.embeddings`, if any, of this text encoder.

    Without parameters (no `config.text.weights`) any encoder of this width is taken.
    """
    folder = config.data.get("embeddings", "")
    if not folder:
        return None
    identity = None if params is None else text_identity(config, params)
    cache = embeddings.open_cache(folder, identity)
    width = make_text_module(config).d_model
    if (
        cache.manifest["d_model"] != width
        or cache.manifest["length"] > config.text.length
    ):
        raise ValueError(
            f"config.data.embeddings: {folder} has vectors of "
            f"{cache.manifest['d_model']} for up to {cache.manifest['length']} tokens; "
            f"config.text says {width} and {config.text.length}."
        )
    return cache


def make_reader(
    config: Config, cache: embeddings.Cache | None = None
) -> readers.Reader:
    """The stream of batches of `config.data`, this process's share."""
    ratio = 1
    if "stage" in config and config.stage.low_resolution:
        ratio = config.stage.resolution // config.stage.low_resolution
    return readers.Reader(
        source=make_source(config, "train"),
        tokenizer=make_tokenizer(config),
        batch_size=config.data.batch_size,
        length=config.text.length,
        resolution=config.stage.resolution if "stage" in config else 1,
        seed=config.data.seed,
        crop=config.data.crop or None,
        crop_multiple=ratio,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
        reader=config.data.reader,
        truncate=config.data.task == "pictures",
        cache=cache,
        threads=config.data.threads,
    )


def sheet_source(config: Config) -> tasks.Source:
    """The held-out examples, or those trained on where a small data set has none."""
    try:
        return make_source(config, "heldout")
    except collection.NothingLeft:
        print(
            "No picture is held out (data.pictures.heldout); sample sheets show what "
            "is trained on.",
            file=sys.stderr,
        )
        return make_source(config, "train")


def make_examples(
    config: Config,
    module: stage.Stage,
    mesh: Mesh,
    text: Any,
    cache: embeddings.Cache | None = None,
) -> grid.Examples:
    """Captions to draw while training, held-out ones, with their pictures' low-res.

    Their embeddings come from the text encoder's parameters on the mesh, or, where
    these are None, from files.
    """
    source = sheet_source(config)
    seed, size = config.data.seed, module.resolution
    number = range(config.training.sample_num)
    examples = [source.example(seed, i, size) for i in number]
    texts = [example["text"] for example in examples]
    pictures = [example["image"] for example in examples]
    wanted = grid.prompts(module, texts)
    # On every host alike, whatever devices the drawing will have.
    found: Any
    if text is None and cache is not None:
        found = cache(wanted, config.text.length)
    else:
        with partitioning.use(mesh):
            found = make_text_encoder(config).truncated(text, wanted)
        found = map(partitioning.fetch, found)
    embedding = encoder.TextEmbedding(*found)
    return grid.examples_of(module, embedding, texts, pictures)


def make_optimizer(config: Config):
    """The optimizer and its learning-rate schedule."""
    values = dict(config.optimizer)
    schedule = optimizer.learning_rate(
        values.pop("peak_lr"),
        warmup_steps=values.pop("warmup_steps"),
        decay=values.pop("decay"),
        total_steps=config.training.steps,
    )
    values["clip_norm"] = values["clip_norm"] or None
    return optimizer.make(values.pop("kind"), schedule=schedule, **values), schedule


def training_run(config: Config) -> loop.TrainingRun:
    """What `imagen-jax train` trains: a stage, or a text encoder."""
    mesh = partitioning.make_mesh(config.mesh)
    rule, schedule = make_optimizer(config)
    cached = bool(config.data.get("embeddings", ""))
    encodes = config.kind == "stage" and (config.text.weights or not cached)
    cache = None
    if cached:
        cache = make_cache(config, text_params(config) if encodes else None)
    reader = make_reader(config, cache)
    common = {
        "optimizer": rule,
        "schedule": schedule,
        "ema_decay": step.ema_decay(
            config.training.ema_decay, warmup=config.training.ema_warmup
        ),
        "make_batches": reader.batches,
        "bad_examples": reader.bad_examples,
        "mesh": mesh,
    }
    if config.kind == "text":
        task = make_text_task(config)
        return loop.TrainingRun(loss=task.loss, init=task.init, **common)
    if config.kind == "scorer":
        task, num = make_detection_task(config), config.training.evaluate_num
        shares = lambda _, ema: scorer_suite.shares(  # noqa: E731
            composition.Scorer(task, ema), num
        )
        return loop.TrainingRun(
            loss=task.loss, init=task.init, evaluate=shares, **common
        )
    module = make_stage(config)
    sample, pictures = None, config.training.sample_every
    text = frozen_params(config, mesh) if encodes and (pictures or not cached) else None
    if pictures:
        examples = make_examples(config, module, mesh, text, cache)
        settings = make_recipe(config)
        sample = lambda _, ema: grid.sheet(module, ema, settings, examples)  # noqa: E731
    return loop.TrainingRun(
        loss=module.loss,
        init=module.init,
        frozen=None if cached else text,
        sample=sample,
        **common,
    )


def loop_settings(config: Config, workdir: str, **flags: Any) -> loop.LoopSettings:
    """How long, where and how often, from `config.training` and the flags."""
    values = dict(config.training)
    for name in ("ema_decay", "ema_warmup", "sample_num", "evaluate_num"):
        values.pop(name, None)
    values["total_steps"] = values.pop("steps")
    values |= {"workdir": workdir, "seed": config.seed, **flags}
    return constructing.construct(loop.LoopSettings, "training", values)


def read_config(workdir: str) -> Config:
    """The config that a working directory was trained with."""
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise ValueError(
            f"{workdir}: no config.json; give a working directory of "
            "`imagen-jax train`."
        )
    return ml_collections.ConfigDict(json.loads(path.read_text()))
