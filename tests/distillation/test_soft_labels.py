import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from penjing.distillation import soft_labels
from penjing.errors import PenjingError


def by_hand(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    learned, taught = log_softmax(student / temperature, axis=1), log_softmax(teacher / temperature, axis=1)
    return float(temperature**2 * (np.exp(taught) * (taught - learned)).sum(axis=1).mean())


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_soft_labels_follow_the_formula(temperature: float) -> None:
    student, teacher = np.random.default_rng(0).normal(size=(2, 6, 5))
    loss = soft_labels(torch.from_numpy(student), torch.from_numpy(teacher), temperature=temperature)
    assert loss.item() == pytest.approx(by_hand(student, teacher, temperature))


def test_dense_predictions_are_averaged_over_positions() -> None:
    student, teacher = np.random.default_rng(1).normal(size=(2, 2, 5, 3, 4))
    rows = [np.moveaxis(x, 1, -1).reshape(-1, 5) for x in (student, teacher)]
    loss = soft_labels(torch.from_numpy(student), torch.from_numpy(teacher), temperature=2.0)
    assert loss.item() == pytest.approx(by_hand(*rows, 2.0))


def test_the_gradient_keeps_its_size_as_the_temperature_grows() -> None:
    teacher = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    norms = []
    for temperature in (20.0, 40.0):
        student = torch.zeros(64, 10, requires_grad=True)
        soft_labels(student, teacher, temperature=temperature).backward()
        norms.append(student.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_no_gradient_flows_into_the_teacher() -> None:
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    soft_labels(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_nested_outputs_are_compared_tensor_by_tensor() -> None:
    a, b, c, d = torch.randn(4, 2, 3)
    loss = soft_labels({"one": a, "two": (b, 7)}, {"one": c, "two": (d, 7)})
    assert loss.item() == pytest.approx(((soft_labels(a, c) + soft_labels(b, d)) / 2).item())


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2, 1), (2, 1)), ((5,), (5,))])
def test_outputs_that_can_not_be_compared_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(PenjingError, match="teacher" if shapes[0] != shapes[1] else 'signal="values"'):
        soft_labels(torch.randn(shapes[0]), torch.randn(shapes[1]))


def test_soft_labels_are_least_where_the_student_equals_the_teacher() -> None:
    teacher = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    assert math.isclose(soft_labels(teacher, teacher).item(), 0, abs_tol=1e-5)
    assert soft_labels(teacher.flip(1), teacher).item() > 0.1


def test_soft_labels_are_averaged_over_the_positions_that_count() -> None:
    student, teacher = np.random.default_rng(2).normal(size=(2, 2, 5, 3))
    counted = np.array([[True, False, True], [False, False, True]])
    rows = [np.moveaxis(x, 1, -1)[counted] for x in (student, teacher)]
    loss = soft_labels(torch.from_numpy(student), torch.from_numpy(teacher), counted=torch.from_numpy(counted))
    assert loss.item() == pytest.approx(by_hand(*rows, 4.0))


def test_a_coarser_output_counts_by_the_share_of_its_pixels_that_do() -> None:
    student, teacher = np.random.default_rng(3).normal(size=(2, 1, 5, 2))
    counted = torch.tensor([[True, True, True, False]])
    weights = np.array([1.0, 0.5])
    losses = [by_hand(student[:, :, p], teacher[:, :, p], 4.0) for p in range(2)]
    loss = soft_labels(torch.from_numpy(student), torch.from_numpy(teacher), counted=counted)
    assert loss.item() == pytest.approx(float((weights * losses).sum() / weights.sum()))
