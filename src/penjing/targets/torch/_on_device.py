"""PyTorch's part of a measurement of memory. It imports PyTorch and NumPy alone."""

from typing import Any

import numpy as np
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the ops of quantised graphs
from torch.utils import _pytree as pytree


def load(path: str, threads: int, inputs: dict[str, np.ndarray]) -> Any:
    """Returns a function that makes one call; the inputs are in the file's order. Reading a file can run code."""
    torch.set_num_threads(threads)
    program = torch.export.load(path)
    leaves, spec = pytree.tree_flatten(program.example_inputs)
    tensors = iter([torch.from_numpy(value) for value in inputs.values()])
    args, kwargs = pytree.tree_unflatten(
        [next(tensors) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec
    )
    model = program.module(check_guards=False)
    return torch.inference_mode()(lambda: model(*args, **kwargs))
