"""What every signal must keep to: called as the table of signals says, and with nothing else."""

import copy

import pytest
import torch
from torch import Tensor

from penjing.distillation import signals
from penjing.errors import PenjingError

every_signal = pytest.mark.parametrize("name", list(signals))


def outputs(kind: str, seed: int) -> object:
    """Returns made-up outputs of a network: logits of a batch, of every pixel, or several tensors in a nest."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    made = {"logits": draw(8, 10), "pixels": draw(2, 5, 3, 4), "nest": {"one": draw(4, 3), "two": (draw(4, 6), 7)}}
    return made[kind]


every_kind = pytest.mark.parametrize("kind", ["logits", "pixels", "nest"])


def loss(name: str, student: object, teacher: object, temperature: float = 4.0) -> Tensor:
    return signals[name].function(student, teacher, temperature=temperature)


@every_signal
def test_a_signal_says_what_it_is_and_who_described_it(name: str) -> None:
    assert signals[name].name == name and signals[name].source and signals[name].summary


@every_signal
@every_kind
@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_a_signal_gives_a_finite_scalar_at_any_temperature(name: str, kind: str, temperature: float) -> None:
    found = loss(name, outputs(kind, 0), outputs(kind, 1), temperature)
    assert found.ndim == 0 and found.isfinite() and found.is_floating_point()


@every_signal
@every_kind
def test_a_signal_is_least_where_the_student_equals_the_teacher(name: str, kind: str) -> None:
    teacher = outputs(kind, 1)
    same = loss(name, teacher, teacher)
    assert all(loss(name, outputs(kind, seed), teacher) > same for seed in (2, 3, 4))


@every_signal
def test_a_student_that_equals_the_teacher_learns_nothing_more(name: str) -> None:
    teacher = outputs("logits", 1)
    student = teacher.clone().requires_grad_()
    loss(name, student, teacher).backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher), rtol=0, atol=1e-6)


@every_signal
@every_kind
def test_following_its_gradient_brings_the_student_nearer(name: str, kind: str) -> None:
    teacher = outputs(kind, 1)
    student = torch.utils._pytree.tree_map_only(Tensor, lambda leaf: leaf.requires_grad_(), outputs(kind, 0))
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(student) if isinstance(leaf, Tensor)]
    before = loss(name, student, teacher)
    before.backward()
    with torch.no_grad():
        for leaf in leaves:
            leaf -= 0.1 * leaf.grad
    assert loss(name, student, teacher) < before


@every_signal
def test_no_gradient_flows_into_the_teacher(name: str) -> None:
    student, teacher = outputs("logits", 0).requires_grad_(), outputs("logits", 1).requires_grad_()
    loss(name, student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


@every_signal
@every_kind
def test_a_signal_leaves_the_outputs_as_they_were_and_says_the_same_of_them_again(name: str, kind: str) -> None:
    student, teacher = outputs(kind, 0), outputs(kind, 1)
    before = copy.deepcopy((student, teacher))
    first = loss(name, student, teacher)
    leaves = torch.utils._pytree.tree_leaves
    pairs = zip(leaves((student, teacher)), leaves(before), strict=True)
    assert all(torch.equal(torch.as_tensor(one), torch.as_tensor(other)) for one, other in pairs)
    assert torch.equal(first, loss(name, student, teacher))


@every_signal
def test_outputs_of_other_shapes_than_the_teacher_s_are_refused(name: str) -> None:
    with pytest.raises(PenjingError, match="teacher"):
        loss(name, torch.randn(8, 10), torch.randn(8, 9))
