"""Judges the original on the validation data, and tells whether it has learned anything that a smaller model could keep."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from penjing import records
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.targets import Artifact, session
from penjing.tasks import Likeness, Task, evaluate, metric_words, sample_count, shown_metric

# Standard errors by which a network that may have random weights must beat a constant answer: chance exceeds two of them once
# in forty times.
CLEARLY = 2.0
LARGE_PART = (
    1 / 3
)  # of the allowed drop: where one sample is more than that, three of them decide whether the drop is kept
SAME = 1e-6  # difference below which metrics are equal: they are computed in float32


@dataclass(frozen=True)
class Baseline:
    """The original's metric, from its lowered file run by the runtime.

    Attributes:
        metric: the task's metric; None without labels.
        constant: the metric of the best constant answer, the same for every sample; None where the task doesn't tell.
        samples: the number of targets behind both metrics.
        seconds: the time that judging took; 0 where there was no validation data.
        judged: the number of samples behind the metric; 0 where there is none. A sample may have many targets.
    """

    metric: float | None
    constant: float | None = None
    samples: int = 0
    seconds: float = field(default=0.0, compare=False)
    judged: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the baseline as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> "Baseline":
        """Makes a baseline of the record that `to_dict` returned.

        Raises:
            PenjingError: the record isn't a baseline's.
        """
        return records.convert(record, cls, "baseline", whole=True)


class Listening:
    """Iterates over a loader's batches, counts their samples and keeps their targets."""

    def __init__(self, loader: Iterable[Any], task: Task) -> None:
        self.loader, self._task = loader, task
        self.targets: list[Any] = []
        self.samples = 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            inputs, targets = self._task.split(batch)
            self.samples += sample_count(inputs)
            if targets is not None:
                self.targets.append(targets)
            yield batch


def judge_original(artifact: Artifact, data: Data, threads: int) -> Baseline:
    """Runs the original's lowered file on the validation data.

    Raises:
        PenjingError: the metric isn't a finite number, so that no other can be compared with it.
    """
    if data.validation is None:
        return Baseline(None)
    began = time.monotonic()
    return replace(_judged(artifact, data, data.validation, threads), seconds=time.monotonic() - began)


def _judged(artifact: Artifact, data: Data, validation: Iterable[Any], threads: int) -> Baseline:
    heard = Listening(validation, data.task)
    metric = evaluate(session(artifact, threads), heard, data.task)
    if metric is not None and not math.isfinite(metric):
        raise PenjingError(
            f"The original's {data.task.metric_name} on the validation data of {data.name} isn't a finite number: its outputs "
            "hold NaN, or the metric can't be computed on this data. Mend that first; there is nothing to compare with."
        )
    constant = getattr(data.task, "constant", None)
    if metric is None:
        return Baseline(None)
    if constant is None or not heard.targets:
        return Baseline(metric, judged=heard.samples)
    # Pixels and tokens of one sample are not independent, so samples count, whatever the number of their targets.
    return Baseline(metric, float(constant(heard.targets)), heard.samples, judged=heard.samples)


def nothing_learned(baseline: Baseline, alike: Likeness | None, task: Task, trained: bool) -> str | None:
    """Says why the original has learned nothing, so that keeping its metric is no success; None if it has learned something.

    Args:
        baseline: how the original was judged.
        alike: how the compressed network's outputs compare with the original's, for data without labels.
        task: names the metric.
        trained: whether the original is known to have trained weights. A network whose weights may be random must beat
            a constant answer by more than chance.
    """
    if baseline.metric is None:
        if alike is not None and alike.constant >= 1:
            return "the original answers every input alike, so nothing tells whether a smaller model does as it does"
        return None
    if baseline.constant is None:
        return None
    share = min(max(baseline.constant, 0.0), 1.0)
    chance = CLEARLY * math.sqrt(share * (1 - share) / max(1, baseline.samples))
    if baseline.metric > baseline.constant + (SAME if trained else max(SAME, chance)):
        return None
    against = shown_metric(task, baseline.constant)
    better = "hardly better" if baseline.metric > baseline.constant + SAME else "no better"
    weights = "" if trained else "; no weights were given, so it may have random ones"
    return (
        f"the original is {better} than always giving the same answer ({metric_words(task, baseline.metric)}, against "
        f"{against:.4f}){weights}"
    )


def collapsed(constant: float | None, metric: float | None, alike: Likeness | None, task: Task) -> str | None:
    """Says that the compressed network is no better than one that answers every input alike; None where it is better.

    Args:
        constant: the metric of the best constant answer.
        metric: the metric of the compressed file.
        alike: how the compressed file's outputs compare with the original's; used where there is no metric.
        task: names the metric.
    """
    if metric is not None and constant is not None:
        reached, limit, what = metric, constant, task.metric_name
    elif metric is None and alike is not None and alike.constant < 1:
        reached, limit, what = alike.value, alike.constant, f"agreement with the original, {alike.measure},"
    else:
        return None
    if reached > limit + SAME:
        return None
    if metric is not None:
        reached, limit = (shown_metric(task, value) for value in (reached, limit))
    return f"what came out is no better than always giving the same answer ({what} {reached:.4f}, against {limit:.4f})"


def too_generous(
    baseline: Baseline, alike: Likeness | None, limit: float | None, task: Task | None = None
) -> str | None:
    """Says that the allowed drop admits a network that answers every input alike; None where it doesn't."""
    if limit is None:
        return None
    if baseline.metric is not None and baseline.constant is not None:
        passes, reached = baseline.constant >= baseline.metric - limit, shown_metric(task, baseline.constant)
    elif baseline.metric is None and alike is not None:
        passes, reached = alike.constant >= 1 - limit, alike.constant
    else:
        return None
    return (
        f"The allowed drop of {limit:g} protects little: a network that answers every input alike would keep it too "
        f"(it reaches {reached:.4f})."
        if passes
        else None
    )


def too_coarse(baseline: Baseline, limit: float | None, noun: str) -> str | None:
    """Says that a single sample is a large part of the allowed drop; None where it isn't, or where its share isn't known.

    A drop of 0 allows no fall at all, however much a sample counts.

    Args:
        baseline: how the original was judged. Where each sample has one target, the metric that has a best constant answer is
            a share of the samples.
        limit: the allowed drop.
        noun: the word for samples.
    """
    if not limit or baseline.constant is None or baseline.samples != baseline.judged or not baseline.judged:
        return None
    share = 1 / baseline.judged
    if share <= limit * LARGE_PART + SAME:
        return None
    fits = "more than" if share > limit + SAME else "a large part of"
    return (
        f"One of {baseline.judged:,} {noun} is {100 * share:.2g} points, {fits} the {100 * limit:g} that the metric may fall by: "
        f"chance decides whether this drop is kept. Judge on more {noun}, or allow a larger drop."
    )
