"""Finds the output shapes of recurrent layers from a single step, since every step's output has the same shape.

PyTorch finds the output shapes of an LSTM, a GRU or an RNN by unrolling the layer. That takes time in proportion to the
number of steps, and fixes this number.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch._C import DispatchKey

from penjing.graph.ops import RECURRENT

BATCH_FIRST = -1  # position of the flag `batch_first` among the arguments of every recurrent op


def one_step(call: Callable[..., Any], *args: Any) -> Any:
    """Returns outputs with the shapes, dtypes and strides of a recurrent op's; their values are those of its first step.

    Args:
        call: the op, or a function with the same arguments.
        args: the op's arguments: the input of shape (batch, steps, features) where the last argument, `batch_first`, is true,
            else (steps, batch, features), and so on.
    """
    steps_axis = 1 if args[BATCH_FIRST] else 0
    steps = args[0].shape[steps_axis]
    hidden, *final = call(args[0].narrow(steps_axis, 0, 1), *args[1:])
    # The op runs with the steps in front, so that its output is a transposed view where the batch stands in front.
    hidden = hidden.transpose(0, steps_axis).repeat(steps, 1, 1).transpose(0, steps_axis)
    return (hidden, *final)


@contextmanager
def never_unrolled() -> Iterator[None]:
    """Makes `torch.export` find the shapes of recurrent layers by `one_step` in a `with` block."""
    keys = (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd)
    before = {(op, key): op.py_kernels[key] for op in RECURRENT for key in keys if key in op.py_kernels}

    def use(kernels: dict[Any, Any]) -> None:
        for (op, key), kernel in kernels.items():
            op.py_kernels[key] = kernel
            op._dispatch_cache.clear()

    use({place: partial(one_step, kernel) for place, kernel in before.items()})
    try:
        yield
    finally:
        use(before)
