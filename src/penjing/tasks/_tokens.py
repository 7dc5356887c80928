"""Batches of token ids: by position, or by name as tokenizers and their collators give them; and which positions hold a token."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.tasks._inputs import by_name
from penjing.tasks._outputs import describe, with_targets
from penjing.tasks._positions import IDS, unpadded

INPUTS = (IDS, "attention_mask")  # as Hugging Face's tokenizers name them
MASK = "attention_mask"
TARGET = "labels"


def named_targets(batch: Any, names: Sequence[str], task: str) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Returns the inputs and the targets of `(input, target)`, `((input, ...), target)`, or a dictionary with "labels".

    Args:
        batch: of the loader.
        names: of a dictionary's entries that the network takes, in order; the last ones may be missing.
        task: the name of the task, for errors.

    Raises:
        PenjingError: the batch is of another form.
    """
    if not isinstance(batch, Mapping):
        return with_targets(batch, task)
    there = [name for name in names if name in batch]
    if gap := [name for name, found in zip(names, there, strict=False) if name != found and names[0] in batch]:
        raise PenjingError(
            f"{task}: a batch lacks '{gap[0]}', and another input would be taken for it, as inputs={tuple(names)} go by their "
            f"order. Leave '{gap[0]}' out of inputs=, or put it into every batch."
        )
    inputs = tuple(batch[name] for name in there)
    targets = batch.get(TARGET)
    fits = all(isinstance(one, Tensor) for one in inputs) and (targets is None or isinstance(targets, Tensor))
    if names[0] not in batch or not fits:
        raise PenjingError(
            f"{task} expects dictionaries with tensors {', '.join(names)} and {TARGET}, but the loader gave {describe(batch)}. "
            "Name the network's inputs with inputs=."
        )
    return inputs, targets


def tokens_counted(inputs: Sequence[Tensor], names: Sequence[str], padding: int | None) -> Tensor | None:
    """Returns which positions hold a token, boolean `(N, positions)`; None where nothing tells, and all count.

    Args:
        inputs: of the network, in the order of the names, or by name.
        names: of the inputs; the one named "attention_mask" tells where there is no padding id.
        padding: the id of padded positions in the first input; None where there is none.

    Raises:
        PenjingError: there is a padding id, and the first input doesn't hold token ids.
    """
    if padding is not None:
        return unpadded(inputs, padding)
    named = by_name(inputs)
    if named is None:
        named = dict(zip(names, inputs, strict=False))
    mask, ids = named.get(MASK), named.get(names[0])
    if mask is None or ids is None or mask.shape != ids.shape or mask.is_floating_point():
        return None
    return torch.as_tensor(mask != 0)
