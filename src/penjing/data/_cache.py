"""Keeps decoded images on disk between runs, since decoding a data set such as CIFAR-10 can take longer than using it."""

from collections.abc import Callable

import numpy as np

from penjing.data._arrays import read_array
from penjing.files import atomic_path, cache_folder, sweep


def cached(key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns the array that `make` computes, from disk if an earlier call stored it under this key.

    Files lie in `cache_folder()`; deleting them is always safe. If the array can't be written
    there, it is only returned.

    Args:
        key: short hash of everything that the array depends on.
        make: computes the array.
    """
    path = cache_folder() / f"{key}.npy"
    try:
        with path.open("rb") as file:
            return read_array(file, path.stat().st_size)
    except (OSError, ValueError):  # not there yet, or damaged
        array = make()
    try:
        sweep(path.parent)
        with atomic_path(path) as temporary:
            np.save(temporary, array)
    except OSError:
        return array  # a full disk or a read-only home is no reason to fail: only the next run is slower
    return array
