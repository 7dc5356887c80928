"""Finds the tensor that holds the answer in the outputs of a network or a runtime."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.tasks._inputs import Inputs, inputs_of

LABELS = "labels"  # the name of a mapping's targets, as in Hugging Face's datasets


def first_tensor(outputs: Any) -> Tensor:
    """Returns the first tensor of `outputs`, depth first: the logits of models that return more than logits.

    Args:
        outputs: a tensor, a NumPy array (runtimes), or any nesting of mappings, tuples and lists of them.

    Raises:
        PenjingError: there is no tensor in the outputs.
    """
    return all_tensors(outputs)[0]


def all_tensors(outputs: Any) -> list[Tensor]:
    """Returns all tensors of `outputs`, depth first; takes and raises the same as `first_tensor`."""
    found = list(_search(outputs))
    if not found:
        raise PenjingError(
            f"The model returned {type(outputs).__name__} with no tensor in it. Write a Task whose loss and metric "
            "know what this model returns."
        )
    return found


def _search(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, np.ndarray):
        yield torch.as_tensor(value)
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _search(item)


def with_targets(batch: Any, task: str) -> tuple[Inputs, Tensor | None]:
    """Returns the inputs and the targets of `(input, target)` or `((input, ...), target)`; no targets for `(input,)`.

    A mapping may stand for the inputs, by the names of the model's arguments; one that stands for the whole batch holds the
    targets as "labels", or has none.

    Raises:
        PenjingError: the batch is of another form; it names the task.
    """
    if isinstance(batch, Tensor):
        return (batch,), None
    if isinstance(batch, Mapping):
        batch = ({name: one for name, one in batch.items() if name != LABELS}, batch.get(LABELS))
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        inputs, targets = inputs_of(batch[0]), batch[1] if len(batch) == 2 else None
        if inputs is not None and (targets is None or isinstance(targets, Tensor)):
            return inputs, targets
    raise PenjingError(
        f"{task} expects batches (input, target), ((input, ...), target) or ({{name: input}}, target), but the loader gave "
        f"{describe(batch)}. Change the loader, or write a Task with your own split()."
    )


def describe(value: Any) -> str:
    """Returns the structure of a batch in a few words, for error messages."""
    if isinstance(value, Tensor):
        return f"Tensor{tuple(value.shape)}"
    if isinstance(value, tuple | list):
        inside = ", ".join(describe(item) for item in value[:4]) + (", ..." if len(value) > 4 else "")
        return f"{type(value).__name__}({inside})"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with the keys {', '.join(map(str, list(value)[:6]))}"
    return type(value).__name__
