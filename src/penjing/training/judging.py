"""Judges the graph on the validation data after each epoch: to stop once it is good enough, and to keep the best weights."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from penjing.data import Data
from penjing.distillation import Teacher
from penjing.distillation.teachers import Lesson
from penjing.errors import PenjingError
from penjing.tasks import agreement, evaluate, metric_words, moved, run_on
from penjing.training.averaging import Average
from penjing.training.checkpoint import Standing, put, with_state
from penjing.training.settings import TrainingSettings


class Judge:
    """Measures the metric after each epoch, remembers the best weights, and tells when the training may end.

    It does nothing where the settings have neither `stop_at` nor `keep="best"`. Without labels, the agreement with the teacher
    takes the metric's place.

    Attributes:
        keeps: whether the best weights are kept.
    """

    def __init__(
        self,
        data: Data,
        teacher: Teacher | None,
        settings: TrainingSettings,
        accelerator: Accelerator,
        callbacks: Sequence[object],
        log: Callable[[str], None],
    ) -> None:
        """Takes what is constant.

        Args:
            data: its validation part and its task are used.
            teacher: the teacher, as it was begun for this training; the graph is compared with it where there are no labels.
            settings: see `recover`.
            accelerator: lets the main process judge, and tells the others.
            callbacks: the run's; the states of those that have one belong to the weights.
            log: called with messages for the user.

        Raises:
            PenjingError: there is nothing to judge on.
        """
        self._data, self._teacher, self._accelerator, self._log = data, teacher, accelerator, log
        self._bound, self.keeps = settings.stop_at, settings.keep == "best"
        self._callbacks = with_state(callbacks) if self.keeps else []
        self._wanted_by = check_judged(settings.stop_at, settings.keep, data)
        self._best: dict[str, Any] = {}

    def __call__(self, graph: nn.Module, standing: Standing, average: Average | None) -> float | None:
        """Judges a graph after an epoch, with the average of its weights where there is one.

        Where it is good enough, the standing then says that no step is left.

        Returns:
            The metric, or None where nothing asks for it.

        Raises:
            PenjingError: neither labels nor a teacher tell how good the graph is.
        """
        if self._wanted_by is None:
            return None
        last = None if average is None else copy.deepcopy(graph.state_dict())
        if average is not None:
            average.write_into(graph)
            if getattr(graph, "masks", None):
                graph.apply_masks()  # type: ignore[operator]
        measured = self._measured(graph) if self._accelerator.is_main_process else None
        metric: float = broadcast_object_list([measured])[0]
        if self.keeps and metric > self._best.get("metric", -math.inf):
            self._best = {"metric": metric, "step": standing.step, **self.snapshot(graph)}
        if last is not None:
            graph.load_state_dict(last)
        if self._bound is not None and metric >= self._bound:
            self._log(
                f"{metric_words(self._data.task, metric)} reaches stop_at={self._bound:g}: training ends after step "
                f"{standing.step} of {standing.total}."
            )
            standing.total, standing.good_enough = standing.step, True
        return metric

    def _measured(self, graph: nn.Module) -> float:
        loader, task = self._data.validation, self._data.task
        assert loader is not None
        metric = evaluate(graph, loader, task)
        if metric is None and self._teacher is not None:
            return agreement(self._taught, graph, loader, task)
        if metric is None:
            raise PenjingError(
                f"{self._wanted_by} judges on the validation data, and that of '{self._data.name}' has no labels: give labelled "
                "batches, or a teacher to compare with."
            )
        return metric

    def _taught(self, *inputs: Any) -> Any:
        assert self._teacher is not None
        return self._teacher.answers(Lesson(moved(inputs, self._accelerator.device), None, run_on))

    def snapshot(self, graph: nn.Module) -> dict[str, Any]:
        """Returns copies of a graph's weights and masks, and of the callbacks' states."""
        return {
            "model": copy.deepcopy(dict(graph.state_dict())),
            "masks": copy.deepcopy(dict(getattr(graph, "masks", None) or {})),
            "callbacks": [copy.deepcopy(callback.state_dict()) for callback in self._callbacks],
        }

    def put(self, snapshot: Mapping[str, Any], graph: nn.Module) -> None:
        """Gives graph and callbacks what a snapshot holds."""
        put(snapshot, graph)
        for callback, state in zip(self._callbacks, snapshot["callbacks"], strict=True):
            callback.load_state_dict(state)

    def put_best(self, graph: nn.Module, standing: Standing) -> bool:
        """Gives graph and callbacks what belongs to the best epoch; tells whether there was any."""
        if not self._best:
            return False
        self.put(self._best, graph)
        if self._best["step"] != standing.step:
            self._log(
                f"The weights of step {self._best['step']} of {standing.total} are kept, the best on the validation data: "
                f"{metric_words(self._data.task, self._best['metric'])}."
            )
        return True

    def state_dict(self) -> dict[str, Any]:
        """Returns the best weights so far and all that belongs to them; empty before any was judged."""
        return self._best

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self._best = state


def check_judged(stop_at: float | None, keep: str, data: Data) -> str | None:
    """Makes sure that there is validation data where an argument of `recover` needs them.

    Returns:
        The argument that has the graph judged, with its value; None where none does.

    Raises:
        PenjingError: there is none.
    """
    by = "keep='best'" if keep == "best" else None if stop_at is None else f"stop_at={stop_at:g}"
    if by is not None and data.validation is None:
        raise PenjingError(f"{by} judges on the validation data, and data.validation of '{data.name}' is None.")
    return by
