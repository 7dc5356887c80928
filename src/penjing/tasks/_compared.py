"""What of a network's outputs is compared with another network's, in the form and the kind that the task says."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from penjing.tasks._likeness import Answers, answers_of
from penjing.tasks._outputs import all_tensors, first_tensor


def compared_of(task: Any, outputs: Any) -> Any:
    """Returns a network's outputs as the task's method `compared` gives them, with classes along axis 1; else as they are."""
    compared = getattr(task, "compared", None)
    return outputs if compared is None else compared(outputs)


def heads_of(task: Any) -> Mapping[str, tuple[Any, float]] | None:
    """Returns the task of each head and its weight, by name, of a task that has several, as `MultiTask`; else None.

    The task's `compared` then gives a mapping from these names to the heads' outputs.
    """
    heads = getattr(task, "heads", None)
    return None if heads is None else {name: (head, task.weights[name]) for name, head in heads.items()}


def judged_of(task: Any, outputs: Any, targets: Any) -> tuple[Any, Any, Any]:
    """Returns the task whose metric is judged, that of the headline where there are several heads, its outputs and targets."""
    if heads_of(task) is None:
        return task, outputs, targets
    name = task.headline
    return task.heads[name], task.head(outputs, name), None if targets is None else targets[name]


def parts_of(task: Any, outputs: Any) -> list[tuple[Answers, Tensor]]:
    """Returns each tensor of the outputs that is compared with another network's, and its kind.

    Raises:
        PenjingError: there is no tensor in the outputs, or not that of a head.
    """
    seen = compared_of(task, outputs)
    heads = heads_of(task)
    if heads is not None:
        return [part for name, (head, _) in heads.items() for part in _tensors(answers_of(head), seen[name])]
    return _tensors(answers_of(task), seen)


def _tensors(kind: Answers, outputs: Any) -> list[tuple[Answers, Tensor]]:
    found = [first_tensor(outputs)] if kind == "classes" else all_tensors(outputs)
    return [(kind, tensor) for tensor in found]
