"""Combines the task's loss and a teacher's signal to one loss."""

from torch import Tensor


def combine(task: Tensor | None, signal: Tensor | None, weight: float) -> Tensor:
    """Balances a task's loss and a signal with a fixed weight λ: `(1 - λ) · task + λ · signal`.

    Where only one of them is given (no teacher, or no labels), that one counts in full: λ is a balance, not a scale.

    Args:
        task: the task's own loss, a scalar; None without labels.
        signal: the distillation loss, a scalar; None without a teacher.
        weight: λ, between 0 (labels alone) and 1 (teacher alone).

    Raises:
        ValueError: neither a task's loss nor a signal is given.
    """
    if task is None and signal is None:
        raise ValueError("there is no loss to combine: neither a task loss nor a signal")
    if signal is None:
        assert task is not None
        return task
    if task is None:
        return signal
    return (1 - weight) * task + weight * signal
