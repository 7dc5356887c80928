"""Trackers: TensorBoard and MLflow get the numbers that `report` gets, epoch by epoch."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker

from penjing.errors import PenjingError, unknown_name
from penjing.training.settings import TrainingSettings

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
TRACKERS = {TENSORBOARD: "runs/penjing", MLFLOW: "penjing"}  # the folder, or the experiment, unless the user names one


def check_trackers(names: Sequence[str]) -> None:
    """Makes sure that trackers are known and installed.

    Raises:
        PenjingError: one isn't.
    """
    for name in names:
        kind, colon, where = name.partition(":")
        if kind not in TRACKERS:
            raise unknown_name("tracker", kind, TRACKERS)
        if colon and not where:
            raise PenjingError(
                f"trackers={name!r}: a folder or an experiment stands behind the colon, or there is none."
            )
        if importlib.util.find_spec(kind) is None:  # each package has its tracker's name
            raise PenjingError(f"trackers={name!r} needs a package that isn't installed: pip install {kind}")


class Trackers:
    """The trackers of one run, called with what `report` gets; open while a block `with` runs."""

    def __init__(self, names: Sequence[str], settings: TrainingSettings, *, is_new: bool) -> None:
        """Takes the names of the trackers.

        Args:
            names: see `recover`.
            settings: those of the run, which MLflow shows beside the numbers.
            is_new: whether the run has just begun. TensorBoard draws one that goes on in the same lines; MLflow makes a new run.
        """
        self._names, self._settings, self._is_new = names, settings, is_new
        self._open: list[GeneralTracker] = []

    def __enter__(self) -> "Trackers":
        """Opens the trackers."""
        for name in self._names:
            tracker = _tracker(name)
            tracker.start()
            self._open.append(tracker)
            if tracker.name == MLFLOW:  # TensorBoard would show the settings as one more run
                tracker.store_init_configuration({**asdict(self._settings), "goes_on": not self._is_new})
        return self

    def __exit__(self, *raised: object) -> None:
        """Closes the trackers."""
        for tracker in self._open:
            tracker.finish()

    def __call__(self, epoch: Mapping[str, Any]) -> None:
        """Logs the numbers of an epoch at its last step."""
        for tracker in self._open:
            tracker.log(dict(numbers(epoch)), step=epoch["step"])


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers in a mapping, depth first, by names such as "losses/task"."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def _tracker(name: str) -> GeneralTracker:
    kind, _, where = name.partition(":")
    where = where or TRACKERS[kind]
    if kind == TENSORBOARD:
        return TensorBoardTracker(Path(where).name, Path(where).parent)
    return MLflowTracker(where, nested_run=True)  # within the user's own run, where there is one
