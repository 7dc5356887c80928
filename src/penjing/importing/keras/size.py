"""Bounds what a `.keras` file makes Keras allocate by the size of the weights in it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penjing.errors import PenjingError


@contextmanager
def bounded(path: Path, weights: int) -> Iterator[None]:
    """Makes Keras' layers refuse weights beyond those that a file can hold, before they are allocated.

    Keras makes every layer with initial weights and reads the file's after that, so that a description of a few bytes could
    ask for any memory. A value takes at least a byte of the file (int8; four in float32).

    Args:
        path: the file, for the error.
        weights: bytes of its weights.

    Raises:
        PenjingError: the layers made inside have more values than `weights`.
    """
    import keras

    add_weight, values = keras.Layer.add_weight, 0

    def counted(layer: Any, shape: Any = None, *rest: Any, **named: Any) -> Any:
        nonlocal values
        values += math.prod((shape,) if isinstance(shape, int) else shape or ())
        if values > weights:
            raise PenjingError(
                f"{path}: its layers up to '{layer.name}' have {values} weights, and its {weights} bytes of weights can't hold "
                "as many. The file is damaged or a trap: save the model again with model.save."
            )
        return add_weight(layer, shape, *rest, **named)

    keras.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.Layer.add_weight = add_weight
