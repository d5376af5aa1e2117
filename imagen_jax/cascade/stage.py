"""One stage of a cascade: where a network meets the mathematics of diffusion."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax import conditioning, pytrees
from imagen_jax.cascade import colour, guiding, images
from imagen_jax.cascade.recipe import SamplingRecipe
from imagen_jax.cascade.request import Edit, Request
from imagen_jax.diffusion import (
    augmentation,
    guidance,
    inpainting,
    losses,
    noise,
    prediction,
    process,
    sampler,
    schedules,
    tiling,
)
from imagen_jax.text import encoder as text_encoder
from imagen_jax.types import Array, Float, Key

Params = Any
COSINE = schedules.CosineSchedule()
NULL_TEXTS = ("zeros", "empty_prompt")
ENLARGEMENTS = ("noised_bicubic", "bilinear_noised")
# In what a weaker model must equal the one that it guides: it is told the same.
SHARED = (
    *("resolution", "low_resolution", "channels", "schedule", "text_dim"),
    *("text_length", "aug_schedule", "enlargement"),
)


@partial(
    pytrees.register_dataclass,
    data_fields=["cond", "uncond", "low_res", "known", "start"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """What every step of a drawing is told.

    Attributes:
      cond: what the network is told.
      uncond: what guidance leads away from; None stands for `cond.null()`.
      low_res: the clean picture whose colours are kept; None: they are not looked at.
      known: the picture and its mask at this stage's size; None: nothing is known.
      start: t at which drawing begins.
    """

    cond: conditioning.Conditioning
    uncond: conditioning.Conditioning | None = None
    low_res: Float[Array, "B h w C"] | None = None
    known: Edit | None = None
    start: float | Float[Array, ""] = 1.0

    def kept(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """x with the known pixels to the bit, whatever a solver's last step does."""
        if self.known is None or self.known.mask is None:
            return x
        return jnp.where(self.known.mask > 0.0, x, self.known.picture)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A denoising network with its schedule, parameterization and inputs.

    Attributes:
      name: names its files and its rows in tables.
      network: a Linen module (z, noise_input, conditioning) -> output.
      schedule: t in [0, 1] -> noise level.
      parameterization: what the network's output means; channels beyond the picture's
        are a learned variance.
      noise_input: noise level -> the scalar [B] that the network is told.
      resolution: height and width that it was made for.
      low_resolution: of the picture it starts from; None for a base stage.
      text_dim, text_length: of the text embedding; 0 for a stage without text.
      encoder: the frozen text encoder (ids, mask) -> values used in `loss`; None
        when batches bring embeddings.
      unmasked: of the encoder's output in `loss`, as `TextEncoder.unmasked`.
      weight: the loss weighting (level, parameterization) -> [B].
      stratified: spread the batch's times evenly instead of drawing each alone.
      text_drop: share of training examples whose text is replaced by the null.
      aug_schedule: aug_level in [0, 1] -> noise on the low-resolution input.
      aug_max: aug_level is drawn from [0, aug_max] in training; 1 is the paper's.
      blur_max: in training the low-resolution picture is also blurred, by a Gaussian
        whose width in its pixels is drawn from [0, blur_max]; 0 is the paper's.
      enlargement: of the low-resolution picture: "noised_bicubic", noised and then
        enlarged; "bilinear_noised", DeepFloyd IF's, enlarged (corners aligned) and then
        noised.
      null_text: what guidance leads away from: "zeros", the paper's, or
        "empty_prompt", the encoder's output for "", DeepFloyd IF's.
      weak: a weaker model of the same, for autoguidance (Karras et al. 2024). Drawing
        then takes a pair of parameters, this stage's and the weak one's; `init` and
        `loss` know this stage's alone.
    """

    name: str
    network: nn.Module
    schedule: schedules.NoiseSchedule
    parameterization: prediction.Parameterization
    # By default the cosine schedule's t of this log-SNR, whatever the schedule:
    # bounded, and the same for equally noisy pictures.
    noise_input: Callable[[noise.NoiseLevel], Array] = noise.cosine_time
    resolution: int
    low_resolution: int | None = None
    channels: int = 3
    text_dim: int = 0
    text_length: int = 0
    encoder: text_encoder.TextNetwork | None = None
    unmasked: bool = False
    weight: losses.Weight = losses.uniform
    stratified: bool = False
    text_drop: float = 0.1
    # Paper silent: which schedule maps aug_level to noise; cosine assumed.
    aug_schedule: schedules.NoiseSchedule = COSINE
    aug_max: float = 1.0
    blur_max: float = 0.0
    enlargement: str = "noised_bicubic"
    null_text: str = "zeros"
    weak: "Stage | None" = None

    def __post_init__(self):
        """Check the resolutions, as early as they can be wrong."""
        low = self.low_resolution
        if low is not None and (low < 1 or self.resolution % low):
            raise ValueError(
                f"Stage {self.name}: low_resolution must divide resolution "
                f"{self.resolution}, got {low}."
            )
        prediction.check(self.parameterization, self.schedule)
        if isinstance(self.aug_schedule, schedules.ExplodingSchedule):
            raise ValueError(
                f"Stage {self.name}: aug_schedule must keep the low-resolution "
                "picture in range, got ExplodingSchedule; use CosineSchedule."
            )
        if not 0.0 <= self.text_drop < 1.0:
            raise ValueError(
                f"Stage {self.name}: text_drop must be in [0, 1), got {self.text_drop}."
            )
        if self.text_drop and self.null_text == "empty_prompt":
            raise ValueError(
                f"Stage {self.name}: text_drop must be 0 with null_text = "
                "'empty_prompt', as training drops text to zeros; let a share of the "
                f"captions be empty instead, got {self.text_drop}."
            )
        if not 0.0 < self.aug_max <= 1.0:
            raise ValueError(
                f"Stage {self.name}: aug_max must be in (0, 1], got {self.aug_max}."
            )
        if self.blur_max < 0.0:
            raise ValueError(
                f"Stage {self.name}: blur_max must be >= 0, got {self.blur_max}."
            )
        for field, kinds in (("enlargement", ENLARGEMENTS), ("null_text", NULL_TEXTS)):
            if getattr(self, field) not in kinds:
                raise ValueError(
                    f"Stage {self.name}: {field} must be one of {kinds}, got "
                    f"{getattr(self, field)!r}."
                )
        for field in SHARED if self.weak is not None else ():
            own, other = getattr(self, field), getattr(self.weak, field)
            if own != other:
                raise ValueError(
                    f"Stage {self.name}: the weaker model of autoguidance must have "
                    f"the same {field}, {own}, got {other}."
                )

    def example_inputs(self, size: int | None = None, batch: int = 1):
        """Zeros of the network's input shapes: (z, noise_input, conditioning)."""
        size = size or self.resolution
        z = jnp.zeros((batch, size, size, self.channels))
        text = self.text_dim > 0
        shape = (batch, self.text_length)
        cond = conditioning.Conditioning(
            tokens=jnp.zeros((*shape, self.text_dim)) if text else None,
            mask=jnp.ones(shape, bool) if text else None,
            planes=None if self.low_resolution is None else z,
            aug_level=None if self.low_resolution is None else jnp.zeros(batch),
        )
        return z, jnp.zeros(batch), cond

    def init(self, key: Key[Array, ""]) -> Params:
        """Boxed Linen parameters (`flax.linen.unbox` gives the arrays)."""
        return self.network.init(key, *self.example_inputs())["params"]

    def init_drawing(self, key: Key[Array, ""]) -> Params:
        """Boxed parameters as drawing takes them: with a weaker model, of both."""
        if self.weak is None:
            return self.init(key)
        return self.init(key), self.weak.init(key)

    def output(
        self,
        params: Params,
        z: Array,
        level: noise.NoiseLevel,
        cond: conditioning.Conditioning,
    ) -> Array:
        """The raw network output at a noise level."""
        told = self.noise_input(level)
        scaled = prediction.network_input(z, level, self.schedule)
        output: Any = self.network.apply({"params": params}, scaled, told, cond)
        return output

    def denoiser(self, params: Params) -> prediction.Denoiser:
        """Bind parameters: (z, level, cond) -> Prediction."""

        def denoise(z, level, cond):
            output, gamma = prediction.split(self.output(params, z, level, cond), z)
            found = self.parameterization.predict(output, z, level)
            return found._replace(gamma=gamma)

        return denoise

    def encode(self, frozen: Params, batch: dict[str, Array]):
        """The text embedding of a batch: brought along, or encoded here."""
        if not self.text_dim:
            return None
        if "text_values" in batch:
            return text_encoder.TextEmbedding(batch["text_values"], batch["mask"])
        if self.encoder is None:
            raise ValueError(
                f"Stage {self.name}: batches must bring text_values, or the stage an "
                "encoder."
            )
        return text_encoder.embed(
            self.encoder,
            frozen,
            jnp.asarray(batch["tokens"]),
            jnp.asarray(batch["mask"]),
            unmasked=self.unmasked,
        )

    def condition(
        self,
        text: text_encoder.TextEmbedding | None,
        low_res: Float[Array, "B h w C"] | None,
        aug_level: Float[Array, " B"] | None,
        keys: Key[Array, "..."],
        size: tuple[int, int],
    ) -> conditioning.Conditioning:
        """What the network is told: text, and the noised, upsampled low-res picture.

        The noise is drawn once and kept over all sampling steps (Saharia et al. 2022,
        section 2.4). `keys` is one key, or one a picture.
        """
        planes = None
        if low_res is not None and aug_level is not None:
            level = self.aug_schedule(aug_level)
            if self.enlargement == "bilinear_noised":
                large = images.enlarge_aligned(low_res, size)
                planes = augmentation.augment(keys, large, level)
            else:
                noisy = augmentation.augment(keys, low_res, level)
                planes = images.resize(noisy, size)
        return conditioning.Conditioning(
            tokens=None if text is None else text.values,
            mask=None if text is None else text.mask,
            planes=planes,
            aug_level=None if low_res is None else aug_level,
        )

    def unconditional(
        self,
        cond: conditioning.Conditioning,
        empty: text_encoder.TextEmbedding | None,
        negative: text_encoder.TextEmbedding | None = None,
    ) -> conditioning.Conditioning | None:
        """What guidance leads away from; None stands for `cond.null()`.

        Args:
          cond: what the network is told.
          empty: the embedded empty prompt, one a picture.
          negative: embedded negative prompts, one a picture, which take its place.

        Raises:
          ValueError: if the null is the empty prompt and none is given.
        """
        if negative is not None and cond.tokens is not None:
            return dataclasses.replace(cond, tokens=negative.values, mask=negative.mask)
        if self.null_text == "zeros" or cond.tokens is None:
            return None
        if empty is None:
            raise ValueError(
                f"Stage {self.name}: null_text = 'empty_prompt' needs the embedding of "
                "the empty prompt, got none."
            )
        return dataclasses.replace(cond, tokens=empty.values, mask=empty.mask)

    def loss(
        self,
        key: Key[Array, ""],
        params: Params,
        frozen: Params,
        batch: dict[str, Array],
    ) -> tuple[Float[Array, " B"], dict[str, Array]]:
        """The denoising loss of each example of a batch of uint8 images."""
        k_text, k_level, k_aug, k_loss = jax.random.split(key, 4)
        x = images.to_float(batch["image"])
        size = (x.shape[1], x.shape[2])
        low_res = aug_level = None
        if self.low_resolution is not None:
            ratio = self.resolution // self.low_resolution
            low_res = images.resize(x, (size[0] // ratio, size[1] // ratio))
            if self.blur_max:
                low_res = augmentation.blur(
                    low_res,
                    jax.random.uniform(
                        jax.random.fold_in(k_level, 0),
                        x.shape[:1],
                        maxval=self.blur_max,
                    ),
                )
            aug_level = jax.random.uniform(k_level, x.shape[:1], maxval=self.aug_max)
        text = self.encode(frozen, batch)
        cond = self.condition(text, low_res, aug_level, k_aug, size)
        cond = cond.drop_text(k_text, self.text_drop)
        loss = losses.diffusion_loss(
            k_loss,
            x,
            cond,
            partial(self.output, params),
            self.schedule,
            parameterization=self.parameterization,
            weight=self.weight,
            stratified=self.stratified,
        )
        return loss, {}

    def guided(
        self,
        params: Params,
        recipe: SamplingRecipe,
        uncond: conditioning.Conditioning | None = None,
        start: float | Float[Array, ""] = 1.0,
    ) -> prediction.Denoiser:
        """The denoiser under a recipe's guidance, then its thresholding.

        Args:
          params: of the network, or the pair of it and the weaker one.
          recipe: whose settings count.
          uncond: what guidance leads away from; None stands for `cond.null()`.
          start: t at which drawing begins.
        """
        strong, weak = params, None
        if self.weak is not None:
            strong, weak = params[0], self.weak.tiled(params[1], recipe)
        levels, _ = self.sampler(recipe).levels(start)
        denoise = guiding.guided(
            recipe, self.tiled(strong, recipe), levels, uncond=uncond, weak=weak
        )
        return guidance.thresholded(denoise, recipe.clip())

    def tiled(self, params: Params, recipe: SamplingRecipe) -> prediction.Denoiser:
        """The denoiser, which sees large pictures in tiles where a recipe says so."""
        denoise = self.denoiser(params)
        if not recipe.tile:
            return denoise
        align = self.tile_multiple
        return tiling.tiled(denoise, recipe.tile, recipe.tile_overlap, align)

    @property
    def tile_multiple(self) -> int:
        """What tiles' sides must be multiples of: the network's, and whole low pixels.

        Tiles then meet the grids of the network and of its low-resolution input as the
        whole picture does.
        """
        ratio = self.resolution // (self.low_resolution or self.resolution)
        return math.lcm(ratio, getattr(self.network, "size_multiple", 1))

    def evaluations(self, recipe: SamplingRecipe) -> tuple[int, int]:
        """How often a picture goes through the network, and through the weaker one."""
        levels, _ = self.sampler(recipe).levels()
        return guiding.evaluations(recipe, levels)

    def sampler(self, recipe: SamplingRecipe) -> sampler.Sampler:
        """This stage's schedule under a recipe's solver and number of steps."""
        solver = recipe.solver
        if recipe.resample is not None:
            solver = inpainting.Resampled(solver=solver, times=recipe.resample)
        return sampler.Sampler(
            schedule=self.schedule,
            solver=solver,
            steps=recipe.steps,
            grid=recipe.grid,
        )

    def start(
        self,
        keys: Key[Array, " B"],
        request: Request,
        recipe: SamplingRecipe,
        size: tuple[int, int],
    ) -> tuple[Any, Inputs]:
        """Noise and conditioning to sample from: (solver state, inputs)."""
        low_res, aug_level = request.low_res, None
        if low_res is not None:
            aug_level = jnp.broadcast_to(
                jnp.asarray(recipe.aug_level, jnp.float32), low_res.shape[:1]
            )
        fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
        cond = self.condition(request.text, low_res, aug_level, fold(keys, 1), size)
        draw = self.sampler(recipe)
        z = draw.prior(fold(keys, 0), (*size, self.channels))
        known, start = None, jnp.ones((), jnp.float32)
        if request.edit is not None:
            known = request.edit.at(size)
            start = jnp.asarray(recipe.strength, jnp.float32)
            first = jax.tree.map(lambda a: a[0], draw.levels(start)[0])
            level = jax.tree.map(lambda a: jnp.broadcast_to(a, keys.shape), first)
            z, _ = process.diffuse(fold(keys, 0), known.picture, level)
        return draw.init(z), Inputs(
            cond=cond,
            uncond=self.unconditional(cond, request.empty, request.negative),
            low_res=None if recipe.colour_fix is None else low_res,
            known=None if known is None or known.mask is None else known,
            start=start,
        )

    def advance(
        self,
        keys: Key[Array, " B"],
        params: Params,
        state: Any,
        inputs: Inputs,
        recipe: SamplingRecipe,
        first: int | Array,
        count: int,
    ) -> Any:
        """Take `count` (static) sampling steps from step `first` (traced)."""
        fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
        denoise = self.guided(params, recipe, inputs.uncond, inputs.start)
        if inputs.low_res is not None and recipe.colour_fix is not None:
            denoise = colour.matched(denoise, inputs.low_res, recipe.colour_fix)
        known = inputs.known
        if known is not None and known.mask is not None:
            denoise = inpainting.replaced(denoise, known.picture, known.mask)
        return self.sampler(recipe).advance(
            fold(keys, 2),
            denoise,
            state,
            inputs.cond,
            first=first,
            count=count,
            start=inputs.start,
        )

    def sample(
        self,
        keys: Key[Array, " B"],
        params: Params,
        request: Request,
        recipe: SamplingRecipe,
        size: tuple[int, int] | None = None,
    ) -> Float[Array, "B H W C"]:
        """Draw pictures in one program; [-1, 1] up to the thresholding chosen."""
        size = size or (self.resolution, self.resolution)
        state, inputs = self.start(keys, request, recipe, size)
        state = self.advance(keys, params, state, inputs, recipe, 0, recipe.steps)
        return inputs.kept(state.x)
