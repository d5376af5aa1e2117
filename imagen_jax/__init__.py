"""Imagen in JAX and Flax: `imagen_jax.load("emoji").sample(["a red apple"])`."""

__version__ = "0.1.0"


def load(model: str = "emoji", dtype: str | None = None, **fields):
    """Load a trained cascade, ready to draw.

    Args:
      model: the name of a shipped cascade ("emoji") or a directory that
        `imagen-jax export` wrote.
      dtype: "float32", "bfloat16" or "float16"; by default as it was trained.
      **fields: `batch`, the most pictures drawn at once, or one such number a stage;
        `mesh`, such as {"fsdp": 4} to split parameters over four devices.

    Returns:
      An `imagen_jax.cascade.text_to_image.TextToImage`; see its `sample`.

    Raises:
      ValueError: when there is no such model or its files are damaged.
    """
    from imagen_jax import loading  # Imported on use: `import imagen_jax` stays light.

    return loading.load(model, dtype, **fields)
