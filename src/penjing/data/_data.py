"""What a network is trained, calibrated and judged on, in one value."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.data._preprocess import Preprocess
from penjing.errors import PenjingError
from penjing.tasks import Task


@dataclass(frozen=True)
class Data:
    """Loaders and the task that they serve; any loader may be None where nothing needs it.

    A loader is anything that can be iterated many times and yields batches: `(input, target)`, or `(input,)` without
    labels. If a train loader has `set_epoch(epoch)`, it is called before each epoch.

    Attributes:
        train: shuffled and augmented.
        calibration: some hundred samples of the training data, as the deployed model will see them.
        validation: what the metric is measured on; deterministic.
        task: loss, metric, and how a batch splits.
        name: for reports.
        classes: what the outputs mean, in order.
        preprocess: how an image file becomes an input.
        examples: raw validation images "x" (N, H, W[, 3]) uint8 and labels "y" (N,), where they aren't in files.
        fingerprint: short hash of what the data is; equal data has equal fingerprints.
    """

    train: Iterable[Any] | None
    calibration: Iterable[Any] | None
    validation: Iterable[Any] | None
    task: Task
    name: str = "custom"
    classes: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    examples: Mapping[str, np.ndarray] | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Refuses loaders that could be read only once, and what isn't a task."""
        for part in ("train", "calibration", "validation"):
            loader = getattr(self, part)
            if loader is not None and (not hasattr(loader, "__iter__") or hasattr(loader, "__next__")):
                raise PenjingError(
                    f"{part} must be something that can be iterated many times (a DataLoader, a list of batches), "
                    f"not {type(loader).__name__}."
                )
        if not isinstance(self.task, Task):
            raise PenjingError(f"task must be a penjing.tasks.Task, not {type(self.task).__name__}.")


def fingerprint(*parts: object) -> str:
    """Returns a short hash of the parts' texts; bytes are hashed as they are."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
