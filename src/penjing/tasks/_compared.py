"""What of a network's outputs is compared with another network's, in the form and the kind that the task says."""

from typing import Any

from torch import Tensor

from penjing.tasks._likeness import Answers, answers_of
from penjing.tasks._outputs import all_tensors, first_tensor


def compared_of(task: Any, outputs: Any) -> Any:
    """Returns a network's outputs as the task's method `compared` gives them, with classes along axis 1; else as they are."""
    compared = getattr(task, "compared", None)
    return outputs if compared is None else compared(outputs)


def parts_of(task: Any, outputs: Any) -> list[tuple[Answers, Tensor]]:
    """Returns each tensor of the outputs that is compared with another network's, and its kind.

    Raises:
        PenjingError: there is no tensor in the outputs, or not that of a head.
    """
    seen = compared_of(task, outputs)
    heads = getattr(task, "heads", None)
    if heads is not None:
        return [part for name, head in heads.items() for part in _tensors(answers_of(head), seen[name])]
    return _tensors(answers_of(task), seen)


def _tensors(kind: Answers, outputs: Any) -> list[tuple[Answers, Tensor]]:
    found = [first_tensor(outputs)] if kind == "classes" else all_tensors(outputs)
    return [(kind, tensor) for tensor in found]
