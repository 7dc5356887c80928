"""Signals of outputs, against their papers' formulas written out sample by sample."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from penjing.distillation import Comparison, Seen, signals
from penjing.errors import PenjingError

Row = list[float]


def softmax(row: Row) -> Row:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def kl(teacher: Row, student: Row) -> float:
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True) if t > 0)


def logits(*shape: int) -> tuple[Tensor, Tensor]:
    student, teacher = 2 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return student, teacher


def seen(student: object, teacher: object, targets: Tensor | None = None, counted: Tensor | None = None) -> Comparison:
    return Comparison(Seen(student), Seen(teacher), targets=targets, counted=counted)


def decoupled(student: Row, teacher: Row, label: int, alpha: float, beta: float, temperature: float) -> float:
    """Zhao et al.: α · TCKD + β · NCKD, times T²."""
    own, target = (softmax([value / temperature for value in row]) for row in (student, teacher))
    binary = kl([target[label], 1 - target[label]], [own[label], 1 - own[label]])
    others = [[value / (1 - row[label]) for place, value in enumerate(row) if place != label] for row in (target, own)]
    return temperature**2 * (alpha * binary + beta * kl(*others))


@pytest.mark.parametrize(("alpha", "beta", "temperature"), [(1.0, 8.0, 4.0), (0.5, 2.0, 1.0)])
def test_dkd_follows_its_formula(alpha: float, beta: float, temperature: float) -> None:
    student, teacher = logits(3, 5)
    labels = torch.tensor([4, 0, 2])
    rows = zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True)
    expected = np.mean([decoupled(*row, alpha, beta, temperature) for row in rows])
    loss = signals["dkd"].function(alpha, beta, temperature)(seen(student, teacher, labels))
    assert loss.item() == pytest.approx(expected)


def test_dkd_with_the_weights_that_soft_labels_have_is_soft_labels() -> None:
    student, teacher = logits(1, 5)
    beta = 1 - softmax((teacher[0] / 4).tolist())[3]
    decoupled_loss = signals["dkd"].function(1.0, beta)(seen(student, teacher, torch.tensor([3])))
    assert decoupled_loss.item() == pytest.approx(signals["soft_labels"].function()(seen(student, teacher)).item())


def test_dkd_of_dense_outputs_is_the_mean_over_the_pixels_with_a_label() -> None:
    student, teacher = logits(2, 5, 2, 2)
    labels = torch.tensor([[[4, -100], [0, 2]], [[1, 1], [-100, -100]]])
    expected = [
        decoupled(student[n, :, y, x].tolist(), teacher[n, :, y, x].tolist(), int(labels[n, y, x]), 1, 8, 4)
        for n, y, x in np.ndindex(2, 2, 2)
        if labels[n, y, x] >= 0
    ]
    assert signals["dkd"].function()(seen(student, teacher, labels)).item() == pytest.approx(np.mean(expected))


def test_dkd_of_nested_outputs_takes_those_that_have_labels() -> None:
    student, teacher = logits(3, 5)
    labels = torch.tensor([4, 0, 2])
    boxes = torch.zeros(3, 4, 7)
    alone = signals["dkd"].function()(seen(student, teacher, labels))
    nested = signals["dkd"].function()(seen({"a": boxes, "b": student}, {"a": boxes + 1, "b": teacher}, labels))
    assert nested.item() == alone.item()


@pytest.mark.parametrize(
    "labels", [None, torch.zeros(3, 5), torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, dtype=torch.bool)]
)
def test_dkd_needs_class_indices(labels: Tensor | None) -> None:
    with pytest.raises(PenjingError, match=r'\(3, 5\).*signal="soft_labels"'):
        signals["dkd"].function()(seen(*logits(3, 5), labels))


@pytest.mark.parametrize("temperature", [2.0, 5.0])
def test_standardised_logits_follow_their_formula(temperature: float) -> None:
    student, teacher = logits(4, 6)
    expected = []
    for row in zip(student.tolist(), teacher.tolist(), strict=True):
        own, target = (
            softmax([(value - np.mean(each)) / np.std(each) / temperature for value in each]) for each in row
        )
        expected.append(temperature**2 * kl(target, own))
    loss = signals["logit_standardization"].function(temperature)(seen(student, teacher))
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_standardised_logits_see_neither_the_range_nor_the_mean_of_logits() -> None:
    student, teacher = logits(4, 6)
    signal = signals["logit_standardization"].function()
    assert signal(seen(3 * teacher + 7, teacher)).item() == pytest.approx(0, abs=1e-6)
    assert signal(seen(student, teacher)).item() > 0.01


def test_the_gradient_of_equal_logits_is_finite() -> None:
    student = torch.zeros(4, 6, requires_grad=True)  # as a classifier of zeros gives them
    signals["logit_standardization"].function()(seen(student, logits(4, 6)[1].float())).backward()
    assert 0 < student.grad.abs().max() < 1e3


def test_two_classes_can_not_be_standardised() -> None:
    with pytest.raises(PenjingError, match="three classes or more"):
        signals["logit_standardization"].function()(seen(*logits(4, 2)))


def test_hard_labels_are_the_cross_entropy_with_the_teachers_answers() -> None:
    student, teacher = logits(4, 6)
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    expected = np.mean([-math.log(softmax(own)[int(np.argmax(target))]) for own, target in rows])
    assert signals["hard_labels"].function()(seen(student, teacher)).item() == pytest.approx(expected)


def test_hard_labels_of_dense_outputs_are_the_mean_over_what_counts() -> None:
    student, teacher = logits(2, 5, 3)
    counted = torch.tensor([[True, False, True], [False, False, True]])
    expected = [
        -math.log(softmax(student[n, :, p].tolist())[int(teacher[n, :, p].argmax())])
        for n, p in np.ndindex(2, 3)
        if counted[n, p]
    ]
    loss = signals["hard_labels"].function()(seen(student, teacher, counted=counted))
    assert loss.item() == pytest.approx(np.mean(expected))


def test_outputs_without_classes_have_no_hard_labels() -> None:
    with pytest.raises(PenjingError, match='signal="values"'):
        signals["hard_labels"].function()(seen(torch.zeros(4, 1), torch.zeros(4, 1)))
