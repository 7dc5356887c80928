"""Smoothed labels, for tasks whose loss knows them."""

import copy

from penjing.errors import PenjingError
from penjing.tasks import Task


def smoothed(task: Task, amount: float) -> Task:
    """Returns the task with this share of each label's probability spread over all classes; at 0, the task itself.

    The loss is the task's own, which reads its attribute `label_smoothing`, as that of `penjing.tasks.Classification` does.

    Raises:
        PenjingError: the task has no such attribute, or no labels, or one that says something else.

    References:
        Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision, section 7, arXiv:1512.00567.
    """
    if amount == 0:
        return task
    own = getattr(task, "label_smoothing", None) if task.labelled else None
    if own is None:
        raise PenjingError(
            f"label_smoothing={amount:g} spreads a label over all classes, and the task {type(task).__name__} has no labels that "
            "are classes: leave it out, use penjing.tasks.Classification, or give your task an attribute label_smoothing which "
            "its loss reads."
        )
    if own not in (0, amount):
        raise PenjingError(f"The task has label_smoothing={own:g} already: leave label_smoothing={amount:g} out.")
    changed = copy.copy(task)
    changed.label_smoothing = amount  # type: ignore[attr-defined]
    return changed
