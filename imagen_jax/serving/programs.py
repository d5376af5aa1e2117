"""How many compiled programs memory holds."""

from collections.abc import Hashable

import jax

from imagen_jax.cascade.text_to_image import TextToImage
from imagen_jax.serving.asking import Asked


class Programs:
    """Drawings of one kind share their compiled programs, one set a kind.

    JAX keeps thousands of programs, each with megabytes of code: whoever asks for ever
    other numbers of steps would fill the machine.
    """

    def __init__(self, model: TextToImage, most: int):
        self._model, self._most = model, most
        self._kinds: set[Hashable] = set()

    def make_room(self, asked: Asked) -> bool:
        """To be called before a drawing; returns whether all programs were forgotten.

        They are where this drawing needs new ones and there are those of `most` kinds.
        """
        kind = self._kind(asked)
        full = kind not in self._kinds and len(self._kinds) >= self._most
        if full:
            jax.clear_caches()
            self._kinds.clear()
        self._kinds.add(kind)
        return full

    def _kind(self, asked: Asked) -> Hashable:
        """What no argument of a program tells: shapes, and the static settings."""
        recipes = self._model.recipes_with(recipe=asked.stages, **asked.editing)
        picture = None if asked.picture is None else asked.picture.shape
        given = picture, asked.mask is None
        return jax.tree.structure(recipes), asked.num, given
