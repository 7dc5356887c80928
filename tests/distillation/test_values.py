import numpy as np
import pytest
import torch
from torch import Tensor

from penjing.distillation import soft_labels, suited, values
from penjing.errors import PenjingError


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (2, 3, 4, 5)])
def test_values_are_compared_by_their_mean_squared_error(shape: tuple[int, ...]) -> None:
    student, teacher = np.random.default_rng(0).normal(size=(2, *shape))
    loss = values(torch.from_numpy(student), torch.from_numpy(teacher))
    assert loss.item() == pytest.approx(float(((student - teacher) ** 2).mean()))


def test_values_see_the_common_shift_that_soft_labels_do_not() -> None:
    teacher = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    assert soft_labels(teacher + 5, teacher).item() == pytest.approx(0, abs=1e-5)
    assert values(teacher + 5, teacher).item() == pytest.approx(25)


def test_nested_values_are_compared_tensor_by_tensor() -> None:
    a, b = torch.zeros(4, 3), torch.zeros(4)
    assert values({"one": a, "two": (b, 7)}, {"one": a + 1, "two": (b + 3, 7)}).item() == pytest.approx((1 + 9) / 2)


def test_no_gradient_of_values_flows_into_the_teacher() -> None:
    student, teacher = torch.zeros(2, 1, requires_grad=True), torch.ones(2, 1, requires_grad=True)
    values(student, teacher).backward()
    assert teacher.grad is None and torch.equal(student.grad, torch.full((2, 1), -1.0))


def test_half_precision_values_are_compared_in_float32() -> None:
    student = torch.full((4, 1), 300.0, dtype=torch.float16)  # whose square is beyond float16
    assert values(student, torch.zeros(4, 1, dtype=torch.float16)).item() == 90000


@pytest.mark.parametrize(("student", "teacher"), [((2, 1), (2,)), ((2, 3), (2, 4))])
def test_values_of_other_shapes_are_refused(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(PenjingError, match="teacher of"):
        values(torch.zeros(student), torch.zeros(teacher))


def test_outputs_without_floating_point_numbers_are_refused() -> None:
    with pytest.raises(PenjingError, match="no floating-point tensor"):
        values(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("answers", "outputs", "signal"),
    [
        ("values", torch.zeros(2, 3), "values"),
        ("auto", torch.zeros(2, 1), "values"),
        ("auto", torch.zeros(2), "values"),
        ("classes", torch.zeros(2, 1), "values"),
        ("auto", (torch.zeros(2, 4), torch.zeros(2, 1)), "values"),
        ("auto", torch.zeros(2, 3), "soft_labels"),
        ("classes", torch.zeros(2, 3, 4, 4), "soft_labels"),
        ("classes", (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)), "soft_labels"),
    ],
)
def test_the_signal_follows_what_the_outputs_are(
    answers: str, outputs: Tensor | tuple[Tensor, ...], signal: str
) -> None:
    assert suited(answers, outputs) == signal
