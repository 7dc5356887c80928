"""Targets of a batch in the forms that tasks have: one tensor, a list with an item per sample, or several tensors by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def moved(targets: Any, device: torch.device | None) -> Any:
    """Returns targets with all their tensors on a device; None leaves them where they are."""
    if device is None:
        return targets
    return pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, targets)


def is_additive(task: Any) -> bool:
    """Tells whether the task's metric is computed of sums over samples, and says so by an attribute `additive`."""
    return task.labelled and bool(getattr(task.metric(), "additive", False))


def rows_of(targets: Any, rows: Sequence[int] | Tensor) -> Any:
    """Returns the targets of some samples.

    Args:
        targets: a tensor `(N, ...)`, a list with an item per sample, or a tuple or mapping of these.
        rows: the samples' numbers within the batch.
    """
    if isinstance(targets, Tensor):
        return targets[torch.as_tensor(rows, device=targets.device)]
    if isinstance(targets, list):
        return [targets[int(row)] for row in rows]
    if isinstance(targets, tuple):
        return tuple(rows_of(one, rows) for one in targets)
    if isinstance(targets, Mapping):
        return {name: rows_of(one, rows) for name, one in targets.items()}
    return targets


def joined(parts: Sequence[Any]) -> Any:
    """Returns the targets of several batches as those of one.

    Raises:
        ValueError: the batches' forms differ.
        RuntimeError: the batches' shapes differ.
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if isinstance(first, tuple):
        return tuple(joined(some) for some in zip(*parts, strict=True))
    if isinstance(first, Mapping):
        return {name: joined([part[name] for part in parts]) for name in first}
    return first


def has_rows(targets: Any, samples: int) -> bool:
    """Tells whether targets have one row for each of so many samples."""
    if isinstance(targets, Tensor):
        return targets.ndim > 0 and len(targets) == samples
    if isinstance(targets, list):
        return len(targets) == samples
    if isinstance(targets, tuple | Mapping):
        inside = list(targets.values()) if isinstance(targets, Mapping) else list(targets)
        return bool(inside) and all(has_rows(one, samples) for one in inside)
    return False
