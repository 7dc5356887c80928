"""What holds of every teacher that answers, whatever it is made of."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.distillation import Comparison, Seen, Teacher, signals, teachers
from penjing.distillation.teachers import Lesson

ANSWERING = [name for name, entry in teachers.items() if entry.gives == "answers"]
OF_OUTPUTS = [
    name for name in signals if not (signals[name].function.taps or name in ("gradients", "gradient_sharing"))
]
CPU = torch.device("cpu")


class Net(nn.Module):
    """A batch norm, dropout and a layer, for any number of inputs, which it adds up."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm, self.drop, self.layer = nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4)
        with torch.no_grad():
            self.norm.running_mean.normal_()

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layer(self.drop(self.norm(torch.stack(inputs).sum(0))))}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets teachers keep what they keep by themselves in the test's folder."""
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))


def networks(name: str, seed: int = 1) -> list[Net]:
    return [Net(seed + index) for index in range({"none": 0, "one": 1, "several": 3}[teachers[name].networks])]


def made(name: str, seed: int = 1) -> Teacher:
    return teachers[name].function(*networks(name, seed))


def run(network: nn.Module, inputs: Sequence[Any]) -> Any:
    with torch.no_grad():
        return network(*inputs)


def lesson(labelled: bool = True, seed: int = 0) -> Lesson:
    """Returns a batch of two inputs for each sample."""
    generator = torch.Generator().manual_seed(seed)
    inputs = tuple(torch.randn(5, 6, generator=generator) for _ in range(2))
    return Lesson(inputs, torch.tensor([0, 1, 2, 3, 0]) if labelled else None, run)


def logits(teacher: Teacher, given: Lesson) -> Tensor:
    return teacher.answers(given)["logits"]


@pytest.mark.parametrize("name", teachers)
def test_a_teacher_says_what_it_is_and_who_described_it(name: str) -> None:
    assert teachers[name].name == name and teachers[name].source and teachers[name].summary


@pytest.mark.parametrize("name", ANSWERING)
def test_a_training_changes_neither_the_teacher_nor_what_it_is_made_of(name: str) -> None:
    nets, student = networks(name), Net(9)
    before = copy.deepcopy([*nets, student])
    teacher = teachers[name].function(*nets)
    kept = dict(vars(teacher))
    ready = teacher.begin(student, CPU)
    ready.answers(lesson())
    ready.follow(Net(8))
    ready.save()
    assert vars(teacher) == kept and ready is not teacher
    for net, old in zip([*nets, student], before, strict=True):
        assert net.training and all(parameter.requires_grad for parameter in net.parameters())
        assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), old.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ANSWERING)
def test_a_teacher_answers_in_eval_mode_and_without_gradients(name: str) -> None:
    ran: list[nn.Module] = []

    def watched(network: nn.Module, inputs: Sequence[Any]) -> Any:
        ran.append(network)
        return network(*inputs)

    given = lesson()
    answer = made(name).begin(Net(9), CPU).answers(Lesson(given.inputs, given.targets, watched))
    assert ran and not any(network.training for network in ran)
    assert answer["logits"].shape == (5, 4) and answer["logits"].isfinite().all()
    assert not answer["logits"].requires_grad


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "unlabelled"])
def test_the_same_batch_gets_the_same_answer_and_stays_as_it_was(name: str, labelled: bool) -> None:
    ready, given = made(name).begin(Net(9), CPU), lesson(labelled)
    before = [x.clone() for x in given.inputs]
    first = logits(ready, given).clone()
    logits(ready, lesson(labelled, seed=3))
    assert torch.equal(logits(ready, given), first)
    assert all(torch.equal(x, old) for x, old in zip(given.inputs, before, strict=True))
    assert not torch.equal(logits(ready, lesson(labelled, seed=3)), first)


@pytest.mark.parametrize("signal", OF_OUTPUTS)
@pytest.mark.parametrize("name", ANSWERING)
def test_every_signal_of_outputs_understands_the_answers(name: str, signal: str) -> None:
    given, student = lesson(), Net(7)
    own, answer = student(*given.inputs), made(name).begin(Net(9), CPU).answers(given)
    seen = Comparison(Seen(own), Seen(answer), targets=given.targets)
    asked = signals[signal].function()
    asked.prepare(seen)
    loss = asked(seen)
    loss.backward()
    assert loss.isfinite() and float(student.layer.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("name", ANSWERING)
def test_answers_within_autocast_are_close_to_those_in_float32(name: str) -> None:
    ready, given = made(name).begin(Net(9), CPU), lesson()
    with torch.autocast("cpu", torch.bfloat16):
        rough = logits(ready, given).float()
    plain = logits(made(name).begin(Net(9), CPU), given)
    assert torch.allclose(rough, plain, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", [name for name in ANSWERING if teachers[name].networks != "none"])
def test_teachers_with_other_weights_have_another_identity(name: str) -> None:
    assert made(name).identity() == made(name).identity() != made(name, seed=5).identity()
    ready = made(name).begin(Net(9), CPU)
    assert ready.identity() == made(name).identity()


@pytest.mark.parametrize("name", ANSWERING)
def test_a_teacher_goes_on_with_what_it_knew(name: str) -> None:
    students = [Net(seed) for seed in range(20, 23)]
    first = made(name).begin(Net(9), CPU)
    for student in students:
        first.follow(student)
    state = copy.deepcopy(first.state_dict())
    second = made(name).begin(Net(9), CPU)
    second.load_state_dict(state)
    for student in students:
        first.follow(student)
        second.follow(student)
    assert torch.equal(logits(first, lesson()), logits(second, lesson()))


@pytest.mark.parametrize("name", ANSWERING)
def test_what_a_teacher_wrote_changes_no_answer(name: str) -> None:
    ready = made(name).begin(Net(9), CPU)
    first = logits(ready, lesson()).clone()
    ready.save()
    assert torch.equal(logits(made(name).begin(Net(9), CPU), lesson()), first)


@pytest.mark.parametrize("name", ANSWERING)
def test_a_teacher_that_signals_can_not_look_into_says_why(name: str) -> None:
    ready = made(name).begin(Net(9), CPU)
    assert ready.why_closed if ready.network is None else isinstance(ready.network, nn.Module)
