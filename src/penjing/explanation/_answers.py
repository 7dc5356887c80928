"""The answers of two classifiers on the same samples, and what follows from them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.explanation import _statistics
from penjing.explanation._records import Bin, Calibration, ChangedSample, ClassChange, Kind
from penjing.explanation._shown import shown
from penjing.tasks import answered, each_input

BINS = 15  # of the confidence, as Guo et al. take
NONE = "no answer"  # where all outputs are equal, or one is NaN
ORDER: tuple[Kind, ...] = ("lost", "changed", "gained", "other")


def is_classes(outputs: Tensor, targets: Any) -> bool:
    """Tells whether outputs `(N, C)` are scores of classes, one answer a sample, and targets `(N,)` class indices."""
    if outputs.ndim != 2 or outputs.shape[1] < 2 or not outputs.is_floating_point():
        return False
    if targets is None:
        return True
    return isinstance(targets, Tensor) and (targets.shape == outputs.shape[:1] and not targets.is_floating_point())


@dataclass
class Answers:
    """The answers of both networks, batch by batch.

    Attributes:
        data: names the classes and the samples' files.
        kept: how many changed samples of each kind are drawn.
    """

    data: Data
    kept: int
    _answers: list[np.ndarray] = field(default_factory=list)  # (2, n) of each batch: the original's, the small one's
    _confidences: list[np.ndarray] = field(default_factory=list)  # (2, n)
    _targets: list[np.ndarray] = field(default_factory=list)  # (n,)
    # Whether each network's outputs are probabilities: decided once, by the first batch that can tell.
    _probabilities: list[bool | None] = field(default_factory=lambda: [None, None])
    _samples: int = 0
    _changed: dict[Kind, list[ChangedSample]] = field(default_factory=dict)

    def update(self, inputs: tuple[Tensor, ...], targets: Tensor | None, before: Tensor, after: Tensor) -> None:
        """Adds one batch: the inputs, class indices `(n,)` if there are some, and both networks' outputs `(n, C)`."""
        scores = [outputs.detach().float().cpu() for outputs in (before, after)]
        for network, one in enumerate(scores):
            if self._probabilities[network] is None:
                self._probabilities[network] = _are_probabilities(one)
        pairs = [_answer(one, bool(sure)) for one, sure in zip(scores, self._probabilities, strict=True)]
        answers, confidences = (np.stack([pair[part] for pair in pairs]) for part in (0, 1))
        labels = None if targets is None else targets.cpu().numpy()
        self._answers.append(answers)
        self._confidences.append(confidences)
        if labels is not None:
            self._targets.append(labels)
        found: dict[Kind, list[tuple[ChangedSample, int]]] = {}
        for at in np.flatnonzero(answers[0] != answers[1]).tolist():
            label = None if labels is None else int(labels[at])
            kind = _kind(int(answers[0, at]), int(answers[1, at]), label)
            found.setdefault(kind, []).append((self._sample(at, kind, answers, confidences, label), at))
        for kind, some in found.items():
            # Only what is kept so far is drawn: drawing takes longer than comparing.
            best = sorted([*((one, None) for one in self._changed.get(kind, [])), *some], key=_rank)[: self.kept]
            self._changed[kind] = [
                one if at is None else _drawn(one, each_input(inputs, itemgetter(at)), self.data) for one, at in best
            ]
        self._samples += answers.shape[1]

    @property
    def labelled(self) -> bool:
        """Whether all batches had labels."""
        return bool(self._targets) and len(self._targets) == len(self._answers)

    def told(self) -> dict[str, Any]:
        """Returns what an `Explanation` says of answers, by the names of its attributes."""
        answers = np.concatenate(self._answers, axis=1)
        facts: dict[str, Any] = {
            "changed": int((answers[0] != answers[1]).sum()),
            "shown": self._chosen(),
        }
        if not self.labelled:
            return facts
        targets = np.concatenate(self._targets)
        right = answers == targets
        lost, gained = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        confidences = np.concatenate(self._confidences, axis=1)
        calibrated = (_calibration(*one) for one in zip(confidences, right, strict=True))
        return {
            **facts,
            "lost": lost,
            "gained": gained,
            "chance": _statistics.by_chance(lost, gained),
            "classes": _classes(targets, right, self._named),
            **dict(zip(("calibration_before", "calibration_after"), calibrated, strict=True)),
        }

    def _chosen(self) -> tuple[ChangedSample, ...]:
        """Returns the samples to show: the lost ones first, a quarter of the room kept for what else changed."""
        first, *others = ([*self._changed.get(kind, [])] for kind in ORDER)
        rest = [one for kind in others for one in kind]
        first = first[: self.kept - min(len(rest), self.kept // 4)]
        return (*first, *rest[: self.kept - len(first)])

    def accuracy(self) -> dict[str, _statistics.Estimate]:
        """Returns both networks' accuracy and its change, where there are labels."""
        targets = np.concatenate(self._targets)
        right = np.concatenate(self._answers, axis=1) == targets
        before, after = (_statistics.share(int(one.sum()), len(targets)) for one in right)
        lost, gained = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        return {"before": before, "after": after, "change": _statistics.change(lost, gained, len(targets))}

    def _named(self, number: int) -> str:
        if number < 0:
            return NONE
        names = self.data.classes
        return names[number] if names is not None and number < len(names) else str(number)

    def _sample(
        self, at: int, kind: Kind, answers: np.ndarray, confidences: np.ndarray, label: int | None
    ) -> ChangedSample:
        index, files = self._samples + at, self.data.validation_files
        return ChangedSample(
            index, kind, self._named(int(answers[0, at])), self._named(int(answers[1, at])),
            float(confidences[0, at]), float(confidences[1, at]), None if label is None else self._named(label),
            files[index][0] if files is not None and index < len(files) else None,
        )  # fmt: skip


def _are_probabilities(scores: Tensor) -> bool | None:
    """Tells whether outputs `(N, C)` are probabilities already; None where no row holds numbers alone."""
    whole = scores[scores.isfinite().all(1)]
    if not len(whole):
        return None
    return bool((whole >= 0).all()) and bool(((whole.sum(1) - 1).abs() < 1e-3).all())


def _answer(scores: Tensor, sure: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes `(N,)`, −1 where there is no answer, and the probabilities `(N,)` of outputs `(N, C)`.

    Args:
        scores: the outputs.
        sure: whether they are probabilities already.
    """
    confidence, answer = (scores if sure else scores.softmax(1)).max(1)
    answer = torch.where(answered(scores), answer, -1)
    return answer.numpy(), confidence.nan_to_num(0.0).numpy()


def _kind(before: int, after: int, label: int | None) -> Kind:
    if label is None:
        return "changed"
    return "lost" if before == label else "gained" if after == label else "other"


def _drawn(one: ChangedSample, sample: tuple[Tensor, ...], data: Data) -> ChangedSample:
    try:
        told = shown(sample, data)
    except PenjingError as error:
        if error.__cause__ is None:  # what the function gave can't be shown, of whatever sample
            raise
        told = {"text": f"Not shown: {error}"}  # of this sample alone: it mustn't cost all that was measured
    return replace(one, image=told.get("image"), text=told.get("text"))


def _rank(one: tuple[ChangedSample, int | None]) -> tuple[float, int]:
    return -one[0].after_confidence, one[0].index


def _calibration(confidences: np.ndarray, right: np.ndarray) -> Calibration:
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = tuple(
        Bin(int(within.sum()), float(confidences[within].mean()), float(right[within].mean()))
        for within in (places == number for number in range(BINS))
        if within.any()
    )
    return Calibration(sum(one.samples * abs(one.confidence - one.accuracy) for one in bins) / len(right), bins)


def _classes(targets: np.ndarray, right: np.ndarray, named: Any) -> tuple[ClassChange, ...]:
    rows, chances = [], []
    for number in _distinct(targets):
        own = right[:, targets == number]
        samples, (before, after) = own.shape[1], own.sum(1).tolist()
        lost, gained = int((own[0] & ~own[1]).sum()), int((~own[0] & own[1]).sum())
        chances.append(_statistics.by_chance(lost, gained))
        rows.append(
            ClassChange(
                named(number), samples, _statistics.share(before, samples), _statistics.share(after, samples),
                _statistics.change(lost, gained, samples), False,
            )
        )  # fmt: skip
    clear = _statistics.clearly(chances)
    told = [replace(row, clear=one) for row, one in zip(rows, clear, strict=True)]
    return tuple(sorted(told, key=lambda row: row.change.value))


def _distinct(targets: np.ndarray) -> Iterable[int]:
    numbers: list[int] = np.unique(targets).tolist()
    return numbers
