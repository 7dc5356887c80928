"""What several teachers, another view and a student's average answer, against the formulas of their papers."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from penjing.distillation.teachers import Confidence, CrossModal, Ema, Lesson, Mean, One, Teacher, taught_by
from penjing.errors import PenjingError

CPU = torch.device("cpu")


class Says(nn.Module):
    """Answers with what it was made of."""

    def __init__(self, outputs: object) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *inputs: Tensor) -> object:
        return self.outputs


def asked(teacher: Teacher, targets: object = None, kind: str = "classes", inputs: tuple[Tensor, ...] = ()) -> object:
    ready = teacher.begin(nn.Linear(1, 1), CPU, kind)
    return ready.answers(Lesson(inputs, targets, lambda network, given: network(*given)))


def logits(*shape: int) -> Tensor:
    return torch.from_numpy(3 * np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 2, 5, 3, 4)], ids=["vectors", "maps"])
def test_the_mean_of_classes_is_that_of_probabilities(shape: tuple[int, ...]) -> None:
    given = logits(*shape)
    answer = asked(Mean(*map(Says, given)))
    expected = softmax(given.numpy(), axis=2).mean(0)
    np.testing.assert_allclose(softmax(answer.numpy(), axis=1), expected, rtol=1e-9)
    np.testing.assert_allclose(np.exp(answer.numpy()), expected, rtol=1e-9)


@pytest.mark.parametrize(("kind", "shape"), [("values", (3, 6, 5)), ("auto", (3, 6, 1)), ("classes", (3, 6))])
def test_the_mean_of_values_is_that_of_the_numbers(kind: str, shape: tuple[int, ...]) -> None:
    given = logits(*shape)
    assert torch.allclose(asked(Mean(*map(Says, given)), kind=kind), given.mean(0))


def test_of_nested_outputs_each_tensor_is_joined_and_the_rest_is_the_first_teacher_s() -> None:
    given = logits(2, 2, 6, 5)
    one, other = (Says({"a": pair[0], "b": (pair[1], 7)}) for pair in given)
    answer = asked(Mean(one, other))
    assert answer["b"][1] == 7
    for tensor, index in ((answer["a"], 0), (answer["b"][0], 1)):
        np.testing.assert_allclose(tensor.exp().numpy(), softmax(given[:, index].numpy(), axis=2).mean(0), rtol=1e-9)


def weights_by_hand(unsure: np.ndarray) -> np.ndarray:
    """Returns equation 3 of the paper, of (teachers, samples)."""
    grown = np.exp(unsure)
    return (1 - grown / grown.sum(0)) / (len(unsure) - 1)


def test_confidence_weighs_by_the_cross_entropy_with_the_labels() -> None:
    given, targets = logits(3, 6, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    answer = asked(Confidence(*map(Says, given)), targets)
    cross_entropy = -log_softmax(given.numpy(), axis=2)[:, np.arange(6), targets.numpy()]
    weights = weights_by_hand(cross_entropy)
    expected = (weights[:, :, None] * softmax(given.numpy(), axis=2)).sum(0)
    np.testing.assert_allclose(answer.exp().numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(weights.sum(0), 1)


@pytest.mark.parametrize("targets", [None, torch.full((6,), -100), torch.zeros(6, 2)], ids=["none", "padding", "odd"])
def test_without_labels_confidence_weighs_by_the_entropy(targets: Tensor | None) -> None:
    given = logits(3, 6, 5)
    probabilities = softmax(given.numpy(), axis=2)
    weights = weights_by_hand(-(probabilities * np.log(probabilities)).sum(2))
    answer = asked(Confidence(*map(Says, given)), targets)
    np.testing.assert_allclose(answer.exp().numpy(), (weights[:, :, None] * probabilities).sum(0), rtol=1e-9)


def test_each_position_of_a_map_has_weights_of_its_own() -> None:
    given, targets = logits(3, 2, 5, 3, 4), torch.randint(5, (2, 3, 4))
    targets[0, 1, 2] = -100
    whole = asked(Confidence(*map(Says, given)), targets)
    flat, rows = given.permute(0, 1, 3, 4, 2).reshape(3, -1, 5), targets.flatten()
    apart = asked(Confidence(*map(Says, flat)), rows)
    assert torch.allclose(whole.permute(0, 2, 3, 1).reshape(-1, 5), apart)


def test_the_answer_of_confidence_teaches_what_the_paper_s_sum_of_losses_does() -> None:
    given, targets = logits(3, 6, 5), torch.tensor([0, 4, 2, 2, 1, 3])
    student = torch.randn(6, 5, dtype=torch.double, requires_grad=True)
    cross_entropy = -log_softmax(given.numpy(), axis=2)[:, np.arange(6), targets.numpy()]
    weights = torch.from_numpy(weights_by_hand(cross_entropy))
    losses = -(given.softmax(2) * student.log_softmax(1)).sum(2)
    papers = torch.autograd.grad((weights * losses).sum(), student)[0]
    answer = asked(Confidence(*map(Says, given)), targets)
    ours = nn.functional.kl_div(student.log_softmax(1), answer.log_softmax(1), reduction="sum", log_target=True)
    assert torch.allclose(torch.autograd.grad(ours, student)[0], papers)


def test_a_teacher_that_is_wrong_without_a_doubt_has_no_say() -> None:
    wrong, right = torch.tensor([[0.0, 1000.0]]), torch.tensor([[2.0, 0.0]])
    answer = asked(Confidence(Says(wrong), Says(right)), torch.tensor([0]))
    assert torch.allclose(answer.softmax(1), right.softmax(1)) and answer.isfinite().all()


@pytest.mark.parametrize("kind", [Mean, Confidence])
def test_one_network_alone_is_asked_as_it_is(kind: type[Teacher]) -> None:
    given = logits(6, 5)
    assert torch.allclose(asked(kind(Says(given)), torch.zeros(6).long()).softmax(1), given.softmax(1))


def test_confidence_in_values_is_refused() -> None:
    with pytest.raises(PenjingError, match=r"\(6, 1\).*values.*'mean'"):
        asked(Confidence(*map(Says, logits(2, 6, 1))), kind="auto")


@pytest.mark.parametrize("kind", [Mean, Confidence])
def test_teachers_that_disagree_are_told_with_both_shapes(kind: type[Teacher]) -> None:
    same, other = torch.zeros(6, 5), torch.zeros(6, 4)
    with pytest.raises(PenjingError, match=r"teacher 1 gives .*\(6, 5\).*teacher 3 of .*\(6, 4\)"):
        asked(kind(Says(same), Says(same), Says(other)))


class Sum(nn.Module):
    """Adds up what it is given."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.stack(inputs).sum(0)


def test_teacher_and_student_are_given_inputs_of_their_own() -> None:
    inputs = tuple(torch.full((2, 3), float(value)) for value in (1, 10, 100))
    teacher = CrossModal(Sum(), sees=(0, 2), shows=(1,))
    assert torch.equal(asked(teacher, inputs=inputs), torch.full((2, 3), 101.0))
    assert torch.equal(torch.stack(list(teacher.shown(inputs))), inputs[1][None])
    assert teacher.identity() != CrossModal(Sum(), sees=(2, 0), shows=(1,)).identity()


@pytest.mark.parametrize(("choices", "whose"), [({}, "the teacher"), ({"sees": (0,), "shows": (3,)}, "the student")])
def test_too_few_inputs_for_two_views_are_told(choices: dict[str, tuple[int, ...]], whose: str) -> None:
    teacher = CrossModal(Sum(), **choices)
    with pytest.raises(PenjingError, match=rf"1 input, and {whose} .*positions .*(sees|shows)="):
        teacher.seen((torch.zeros(2, 3),))
        teacher.shown((torch.zeros(2, 3),))


@pytest.mark.parametrize("choices", [{"sees": ()}, {"shows": (-1,)}, {"sees": 1}, {"sees": (0.5,)}])
def test_positions_that_name_no_input_are_refused(choices: dict[str, object]) -> None:
    with pytest.raises(PenjingError, match=r"sees|shows"):
        CrossModal(Sum(), **choices)


class Student(nn.Module):
    """A layer of which two names are one parameter, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.tied = self.layer

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.tied(self.layer(x)))


def test_the_average_follows_the_formula() -> None:
    student, x = Student(), torch.randn(4, 3)
    teacher = Ema(decay=0.6).begin(student, CPU)
    expected = {name: tensor.clone().double() for name, tensor in student.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        student(x)  # moves the norm's statistics
        share = min(1 - 1 / (step + 1), 0.6)
        assert (share == 0.5) == (step == 1)
        for name, value in student.state_dict().items():
            expected[name] = share * expected[name] + (1 - share) * value.double()
        teacher.follow(student)
    found = teacher.network.state_dict()
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            assert found[name] == 5
        else:
            torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6)
    assert not teacher.network.training


def test_an_average_of_other_tensors_is_refused() -> None:
    teacher = Ema().begin(nn.Linear(3, 3), CPU)
    with pytest.raises(PenjingError, match=r"changed while it was trained \(weight"):
        teacher.follow(nn.Linear(4, 3))
    with pytest.raises(PenjingError, match="changed while it was trained"):
        teacher.follow(Student())
    for state in (
        {},
        {"steps": 1, "average": {}},
        {"steps": 1, "average": dict.fromkeys(("weight", "bias"), torch.zeros(1))},
    ):
        with pytest.raises(PenjingError, match="average"):
            teacher.load_state_dict(state)


@pytest.mark.parametrize("decay", [1, -0.1, "0.9", float("nan")])
def test_a_decay_out_of_range_is_refused(decay: object) -> None:
    with pytest.raises(PenjingError, match=r"decay=.*less than 1"):
        Ema(decay)


def test_what_a_user_gives_becomes_a_teacher() -> None:
    one, other, ready = nn.Linear(2, 2), nn.Linear(2, 2), Ema()
    assert taught_by(None) is None and taught_by(ready) is ready
    assert isinstance(taught_by(one), One) and isinstance(taught_by([one]), One)
    assert isinstance(taught_by([one, other]), Mean) and isinstance(taught_by((one, other), "confidence"), Confidence)
    with pytest.raises(PenjingError, match=r"Did you mean 'mean'\? Known: confidence, mean"):
        taught_by([one, other], "meen")


def test_networks_without_values_are_refused() -> None:
    with pytest.raises(PenjingError, match="networks="):
        Mean(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
