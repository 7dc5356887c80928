"""Which positions of a batch of sequences count: those behind a sequence's end, filled with a padding id, don't."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from penjing.checks import optional, whole
from penjing.errors import PenjingError
from penjing.tasks._inputs import by_name
from penjing.tasks._outputs import describe

IDS = "input_ids"  # as Hugging Face's tokenizers name token ids
IGNORED = -100  # the class index that PyTorch's losses leave out: it marks pixels and padded positions that don't count
TOKEN = optional(whole(-(2**62), 2**62))  # the rule of a padding id: some tokenizers have negative ones


def unpadded(inputs: Sequence[Tensor], padding: int | None) -> Tensor | None:
    """Returns which positions of the first input hold a token, boolean `(N, positions)`; None without padding.

    Args:
        inputs: of the network; the first one, or the one named "input_ids" of inputs by name, holds token ids
            `(N, positions)` where there is a padding id.
        padding: the id of padded positions; None where there are none.

    Raises:
        PenjingError: that input doesn't hold token ids.
    """
    if padding is None:
        return None
    named = by_name(inputs)
    ids = named.get(IDS) if named is not None else inputs[0] if inputs else None
    if ids is None or ids.ndim != 2 or ids.is_floating_point():
        raise PenjingError(
            f"padding={padding} is the id of padded positions of token ids (N, positions), the network's first input or the one "
            f"named {IDS}, but that is {'missing' if ids is None else f'{describe(ids)} {ids.dtype}'}. Leave padding out, or "
            "write a task with a method counted(inputs) of your own."
        )
    return ids != padding


def counted_of(task: Any, inputs: Sequence[Tensor], outputs: Any = None, targets: Any = None) -> Tensor | None:
    """Returns which positions count, as the task's methods say; None where all do, or without such methods.

    Args:
        task: its `counted_steps` tells which positions of the outputs count, where that hangs on the targets; else its
            `counted`, which positions of the inputs do.
        inputs: of a batch.
        outputs: of the network.
        targets: of the batch; None without labels.
    """
    steps = getattr(task, "counted_steps", None)
    if steps is not None and targets is not None:
        found: Tensor | None = steps(outputs, targets)
        return found
    counted = getattr(task, "counted", None)
    return None if counted is None else counted(inputs)
