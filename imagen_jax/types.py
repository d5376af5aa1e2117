"""Array types and the names of dimensions, used by every room.

| letter | dimension |
|---|---|
| B | batch |
| H W | height and width of an image or a feature map (NHWC) |
| C | channels |
| L | text length in tokens |
| D | features |
| N | attention heads |
| K | size of one head |
"""

import os
from collections.abc import Callable
from typing import TypeVar

from jaxtyping import Array, Bool, Float, Int, Key, UInt8, jaxtyped

__all__ = ["Array", "Bool", "Float", "Int", "Key", "UInt8", "typechecked"]

F = TypeVar("F", bound=Callable)


def typechecked(function: F) -> F:
    """Check the annotated shapes of a function when IMAGEN_JAX_TYPECHECK=1.

    The tests switch it on; elsewhere the function is returned untouched, so that
    production needs neither beartype nor its time.
    """
    if os.environ.get("IMAGEN_JAX_TYPECHECK") != "1":
        return function
    from beartype import beartype

    return jaxtyped(typechecker=beartype)(function)
