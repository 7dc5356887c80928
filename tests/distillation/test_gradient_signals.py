"""Signals of gradients, against finite differences and analytic gradients."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penjing.distillation import Comparison, Seen, parameter_gradients, signals
from penjing.errors import PenjingError


def network(*widths: int, seed: int = 9) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(widths[0], widths[1]), nn.Tanh(), nn.Linear(widths[1], widths[2])).double()


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(10), dtype=torch.float64)


# Gradients of inputs


def seen_through(student: nn.Module, teacher: nn.Module, inputs: Tensor, **more: object) -> Comparison:
    inputs = inputs.clone().requires_grad_()
    return Comparison(Seen(student(inputs)), Seen(teacher(inputs)), (inputs,), **more)


def slope(model: nn.Module, sample: Tensor, answer: int) -> np.ndarray:
    """Returns the gradient of a logit with respect to one sample, by central differences."""
    found = []
    with torch.no_grad():
        for entry in range(len(sample)):
            step = torch.zeros_like(sample)
            step[entry] = 1e-5
            found.append((model(sample + step)[answer] - model(sample - step)[answer]).item() / 2e-5)
    return np.array(found)


def test_input_gradients_follow_their_formula() -> None:
    student, teacher, inputs = network(4, 5, 3), network(4, 8, 3, seed=11), drawn(6, 4)
    expected = []
    for sample in inputs:
        answer = int(teacher(sample).argmax())
        own, target = slope(student, sample, answer), slope(teacher, sample, answer)
        expected.append(((target / np.linalg.norm(target) - own / np.linalg.norm(own)) ** 2).sum())
    loss = signals["gradients"].function()(seen_through(student, teacher, inputs))
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-6)


def test_the_loss_of_input_gradients_has_a_gradient_that_is_right() -> None:
    student, teacher, inputs = network(4, 5, 3), network(4, 8, 3, seed=11), drawn(6, 4)
    signal, weight = signals["gradients"].function(), student[0].weight
    signal(seen_through(student, teacher, inputs)).backward()
    found, by_differences = weight.grad[2, 1].item(), []
    for step in (1e-5, -1e-5):
        moved = copy.deepcopy(student)
        with torch.no_grad():
            moved[0].weight[2, 1] += step
        by_differences.append(signal(seen_through(moved, teacher, inputs)).item())
    assert found == pytest.approx((by_differences[0] - by_differences[1]) / 2e-5, rel=1e-5)


def test_outputs_without_classes_are_compared_by_the_gradient_of_their_sum() -> None:
    student, teacher, inputs = network(4, 5, 1), network(4, 8, 1, seed=11), drawn(6, 4)
    pairs = [(slope(student, sample, 0), slope(teacher, sample, 0)) for sample in inputs]
    cosines = [own @ target / np.linalg.norm(own) / np.linalg.norm(target) for own, target in pairs]
    loss = signals["gradients"].function()(seen_through(student, teacher, inputs))
    assert loss.item() == pytest.approx(np.mean([2 - 2 * cosine for cosine in cosines]), rel=1e-6)


def test_inputs_without_gradients_are_refused() -> None:
    student, teacher, inputs = network(4, 5, 3), network(4, 8, 3), drawn(6, 4)
    tokens = torch.zeros(6, 4, dtype=torch.long)
    with pytest.raises(PenjingError, match="token numbers have no gradient"):
        signals["gradients"].function()(Comparison(Seen(student(inputs)), Seen(teacher(inputs)), (tokens,)))
    inputs.requires_grad_()
    with pytest.raises(PenjingError, match="The teacher's outputs have no gradient"):
        signals["gradients"].function()(Comparison(Seen(student(inputs)), Seen(teacher(inputs).detach()), (inputs,)))


def test_networks_that_read_different_inputs_have_nothing_in_common() -> None:
    student, teacher, inputs = network(4, 5, 3), network(4, 8, 3), drawn(2, 6, 4).requires_grad_().unbind()
    with pytest.raises(PenjingError, match="depend on different inputs"):
        signals["gradients"].function()(Comparison(Seen(student(inputs[0])), Seen(teacher(inputs[1])), tuple(inputs)))


# Gradients of parameters


def shared(student: nn.Module, teacher: nn.Module) -> Comparison:
    inputs, targets = drawn(6, 4), torch.tensor([0, 2, 1, 1, 0, 2])
    return Comparison(
        Seen(student(inputs), parameters=dict(student.named_parameters())),
        Seen(teacher(inputs).detach()),
        (inputs,),
        targets,
        teacher_gradients=lambda: parameter_gradients(teacher, [inputs], lambda made: F.cross_entropy(made, targets)),
    )


def test_the_gradient_of_the_shared_gradients_is_the_teachers_where_shapes_correspond() -> None:
    student, teacher = network(4, 8, 3), network(4, 8, 3, seed=11)
    student[2] = nn.Linear(8, 3, bias=False).double()
    student[2].weight = nn.Parameter(torch.zeros(3, 9, dtype=torch.float64)[:, :8])
    loud = copy.deepcopy(teacher)
    F.cross_entropy(loud(drawn(6, 4)), torch.tensor([0, 2, 1, 1, 0, 2])).backward()
    teacher.requires_grad_(False)
    signals["gradient_sharing"].function()(shared(student, teacher)).backward()
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, loud.get_parameter(name).grad)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())


def test_shared_gradients_are_a_product_with_the_students_parameters() -> None:
    student, teacher = network(4, 6, 3), network(4, 8, 3, seed=11)  # of which the last bias alone corresponds
    probabilities = teacher(drawn(6, 4)).softmax(1) - F.one_hot(torch.tensor([0, 2, 1, 1, 0, 2]), 3)
    expected = (probabilities.mean(0) @ student[2].bias).item()
    loss = signals["gradient_sharing"].function()(shared(student, teacher.requires_grad_(False)))
    assert loss.item() == pytest.approx(expected)


def test_gradients_can_not_be_shared_where_nothing_corresponds_or_labels_are_missing() -> None:
    student, teacher = network(4, 6, 3), nn.Sequential(nn.Identity(), network(4, 8, 3))
    with pytest.raises(PenjingError, match=r"0\.weight \(6, 4\).*1\.0\.weight \(8, 4\)"):
        signals["gradient_sharing"].function()(shared(student, teacher))
    with pytest.raises(PenjingError, match="takes labels"):
        signals["gradient_sharing"].function()(Comparison(Seen(None), Seen(None)))


def test_the_gradients_of_a_frozen_network_are_had_without_touching_it() -> None:
    frozen = network(4, 6, 3).requires_grad_(False)
    loud = copy.deepcopy(frozen).requires_grad_()
    loud(drawn(6, 4)).square().sum().backward()
    with torch.no_grad():
        found = parameter_gradients(frozen, [drawn(6, 4)], lambda made: made.square().sum())
    assert found.keys() == dict(frozen.named_parameters()).keys()
    for name, parameter in frozen.named_parameters():
        torch.testing.assert_close(found[name], loud.get_parameter(name).grad)
        assert parameter.grad is None and not parameter.requires_grad
