"""The values that nodes of an ONNX graph pass on: tensors, constants, and sizes that depend on the inputs' shapes.

A constant is a NumPy array. A size is a NumPy array of Python objects: whole numbers, or the symbolic ones of `torch.export`.
Sizes are computed in Python, so that a captured graph holds no tensors for them and its batch stays free.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Value = Tensor | np.ndarray | None


def is_constant(value: Any) -> bool:
    """Tells whether a value is the same in every call."""
    return isinstance(value, np.ndarray) and value.dtype != object


def is_sizes(value: Any) -> bool:
    """Tells whether a value holds sizes of tensors."""
    return isinstance(value, np.ndarray) and value.dtype == object


def sizes(numbers: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Returns an array of sizes."""
    made = np.empty(len(numbers), dtype=object)
    made[:] = list(numbers)
    return made


def numbers(value: np.ndarray) -> list[Any]:
    """Returns the entries of a constant or of sizes as Python's numbers."""
    flat = value.reshape(-1)
    return list(flat) if value.dtype == object else flat.tolist()


def as_tensor(value: Any) -> Any:
    """Returns a value as a tensor, and a size without axes as a number, which PyTorch's arithmetic takes as well."""
    if is_sizes(value):
        flat = numbers(value)
        if value.ndim == 0:
            return flat[0]
        return torch.stack([torch.full((), one, dtype=_dtype(one)) for one in flat]).reshape(value.shape)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    return value


def _dtype(number: Any) -> torch.dtype:
    return torch.float32 if isinstance(number, float | torch.SymFloat) else torch.int64
