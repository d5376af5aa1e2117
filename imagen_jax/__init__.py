"""Imagen in JAX and Flax: `imagen_jax.load("emoji").sample(["a red apple"])`."""

__version__ = "0.1.0"


def load(model: str = "emoji"):
    """Load a trained cascade, ready to draw.

    Args:
      model: the name of a shipped cascade ("emoji") or a directory that
        `imagen-jax export` wrote.

    Returns:
      An `imagen_jax.cascade.text_to_image.TextToImage`; see its `sample`.

    Raises:
      ValueError: when there is no such model or its files are damaged.
    """
    from imagen_jax import loading  # Imported on use: `import imagen_jax` stays light.

    return loading.load(model)
