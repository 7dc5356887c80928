"""A mode in which making a floating-point tensor is an error: the proof that a stretch of code is integer."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OnlyIntegers(TorchDispatchMode):
    """While it is active, an op that reads or makes a floating-point or complex tensor raises an AssertionError.

    Example:
        >>> import torch
        >>> with OnlyIntegers():
        ...     int(torch.ones(2, dtype=torch.int32).sum())
        2
        >>> with OnlyIntegers():
        ...     torch.ones(2, dtype=torch.int32) / 2
        Traceback (most recent call last):
        AssertionError: aten.div.Tensor made a float32 tensor among integers.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the op and looks at what went in and came out."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        for did, values in (("read", (args, kwargs)), ("made", result)):
            for value in tree_leaves(values):
                if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
                    dtype = str(value.dtype).removeprefix("torch.")
                    raise AssertionError(f"{func} {did} a {dtype} tensor among integers.")
        return result
