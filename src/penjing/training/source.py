"""Chooses the loader to train on, and checks that something can be learned from it."""

from typing import Any

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.tasks import Task, sample_count


def training_batches(data: Data, teacher: object | None) -> Any:
    """Returns `data.train`, or, where it is None and there is a teacher to learn from, `data.calibration`.

    Raises:
        PenjingError: there is no such loader; the data has no labels and there is no teacher; the loader has no length.
    """
    if data.train is None and (teacher is None or data.calibration is None):
        raise PenjingError(
            f"There is nothing to train on: data.train of '{data.name}' is None. Give train=, a loader of training "
            "batches, or both calibration= and a teacher, or use epochs=0."
        )
    if teacher is None and not data.task.labelled:
        raise PenjingError(
            f"There is nothing to learn: the data '{data.name}' has no labels and no teacher is given. "
            "Pass teacher=, the original model, or use epochs=0."
        )
    name, loader = ("train", data.train) if data.train is not None else ("calibration", data.calibration)
    if not hasattr(loader, "__len__"):
        raise PenjingError(f"data.{name} needs a length (its number of batches), so that len(data.{name}) works.")
    return loader


def batch_size(task: Task, batch: Any) -> int:
    """Returns the number of samples in a batch: the length of its first input with an axis."""
    inputs, _ = task.split(batch)
    return sample_count(inputs)
