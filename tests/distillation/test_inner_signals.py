"""Signals of inner values, against their papers' formulas written out with NumPy."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.distillation import Comparison, Seen, Signal, signals
from penjing.errors import PenjingError

Values = np.ndarray


def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def prepared(name: str, seen: Comparison, **choices: object) -> Signal:
    torch.manual_seed(6)
    signal = signals[name].function(**choices)
    signal.prepare(seen)
    return signal


def paired(students: list[Tensor], teachers: list[Tensor], counted: Tensor | None = None) -> Comparison:
    return Comparison(Seen(None, students), Seen(None, teachers), counted=counted)


def numbers(tensor: Tensor) -> Values:
    return tensor.detach().double().numpy()


# Hints, blocks, features


def test_hints_are_half_the_mean_of_squared_differences() -> None:
    student, teacher = draw((2, 3, 4, 4), (2, 3, 4, 4))
    seen = paired([student], [teacher])
    expected = 0.5 * ((numbers(teacher) - numbers(student)) ** 2).mean()
    assert prepared("hints", seen)(seen).item() == pytest.approx(expected)


def test_a_map_of_another_width_is_regressed_by_a_1x1_convolution() -> None:
    student, teacher = draw((2, 3, 4, 4), (2, 5, 4, 4))
    seen = paired([student], [teacher])
    signal = prepared("hints", seen)
    weight, bias = (numbers(parameter) for parameter in signal.parameters())
    regressed = np.einsum("oc,nchw->nohw", weight, numbers(student)) + bias[None, :, None, None]
    assert weight.shape == (5, 3)
    assert signal(seen).item() == pytest.approx(0.5 * ((numbers(teacher) - regressed) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("axes", [(), (4,)])
def test_a_vector_or_sequence_of_another_width_is_regressed_on_its_last_axis(axes: tuple[int, ...]) -> None:
    student, teacher = draw((2, *axes, 3), (2, *axes, 5))
    seen = paired([student], [teacher])
    signal = prepared("hints", seen)
    weight, bias = (numbers(parameter) for parameter in signal.parameters())
    regressed = numbers(student) @ weight.T + bias
    assert signal(seen).item() == pytest.approx(0.5 * ((numbers(teacher) - regressed) ** 2).mean(), rel=1e-5)


def test_a_regressor_that_is_given_makes_the_teachers_shape() -> None:
    student, teacher = draw((2, 3, 4, 4), (2, 5, 2, 2))
    convolution = nn.Conv2d(3, 5, 2, stride=2)
    seen = paired([student], [teacher])
    signal = prepared("hints", seen, regressors=[convolution])
    expected = 0.5 * ((numbers(teacher) - numbers(convolution(student))) ** 2).mean()
    assert signal(seen).item() == pytest.approx(expected, rel=1e-5)
    assert list(signal.parameters()) == list(convolution.parameters())


def test_a_regressor_that_makes_another_shape_is_refused() -> None:
    student, teacher = draw((2, 3, 4, 4), (2, 5, 4, 4))
    with pytest.raises(PenjingError, match=r"\(2, 4, 4, 4\).*\(2, 5, 4, 4\).*regressors="):
        prepared("hints", paired([student], [teacher]), regressors=[nn.Conv2d(3, 4, 1)])


def test_as_many_regressors_as_values_are_needed() -> None:
    student, teacher = draw((2, 3, 4, 4), (2, 3, 4, 4))
    with pytest.raises(PenjingError, match="1 regressors for 2 pairs"):
        prepared("blocks", paired([student, student], [teacher, teacher]), regressors=[nn.Identity()])


def test_blocks_are_averaged() -> None:
    values = draw((2, 3, 4, 4), (2, 3, 4, 4), (2, 6, 2, 2), (2, 6, 2, 2))
    seen = paired(values[::2], values[1::2])
    halves = [0.5 * ((numbers(b) - numbers(a)) ** 2).mean() for a, b in zip(values[::2], values[1::2], strict=True)]
    assert prepared("blocks", seen)(seen).item() == pytest.approx(np.mean(halves))


def test_features_compare_directions_at_each_position() -> None:
    student, teacher = draw((2, 3, 4, 4), (2, 3, 4, 4))
    seen = paired([student], [teacher])
    expected = []
    for n, y, x in np.ndindex(2, 4, 4):
        own, target = numbers(student)[n, :, y, x], numbers(teacher)[n, :, y, x]
        expected.append(0.5 * ((own / np.linalg.norm(own) - target / np.linalg.norm(target)) ** 2).sum())
    assert prepared("features", seen)(seen).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_positions_that_do_not_count_are_left_out_of_features() -> None:
    student, teacher = draw((2, 4, 3), (2, 4, 3))
    counted = torch.tensor([[True, True, False, False], [False, True, True, True]])
    seen = paired([student], [teacher], counted)
    rows = [
        1 - np.dot(own, target) / np.linalg.norm(own) / np.linalg.norm(target)
        for own, target in zip(numbers(student[counted]), numbers(teacher[counted]), strict=True)
    ]
    assert prepared("features", seen)(seen).item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_a_position_without_features_gets_no_gradient() -> None:
    student, teacher = torch.zeros(2, 3, 4, 4, requires_grad=True), *draw((2, 3, 4, 4))
    seen = paired([student], [teacher])
    prepared("features", seen)(seen).backward()
    assert not student.grad.any()


# Attention


def test_attention_compares_normalised_sums_of_squares() -> None:
    values = draw((2, 3, 4, 4), (2, 7, 4, 4), (2, 5, 6), (2, 5, 3))  # two maps and two sequences of other widths
    seen = paired(values[::2], values[1::2])
    expected = 0.0
    for own, target, channels in ((values[0], values[1], 1), (values[2], values[3], 2)):
        for n in range(2):
            maps = [(numbers(each) ** 2).sum(channels)[n].ravel() for each in (own, target)]
            maps = [each / np.linalg.norm(each) for each in maps]
            expected += 0.5 * ((maps[0] - maps[1]) ** 2).sum() / 2
    assert prepared("attention", seen)(seen).item() == pytest.approx(expected, rel=1e-5)


def test_vectors_have_no_attention() -> None:
    student, teacher = draw((2, 3), (2, 3))
    with pytest.raises(PenjingError, match="which have none"):
        prepared("attention", paired([student], [teacher]))


# Relations


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) <= 1 else abs(difference) - 0.5


def relations(student: Values, teacher: Values, distance_weight: float, angle_weight: float) -> float:
    """Distance-wise and angle-wise losses of Park et al., with means in place of sums."""
    samples = range(len(student))
    pairs = list(itertools.permutations(samples, 2))

    def distances(points: Values) -> list[float]:
        found = [float(np.linalg.norm(points[i] - points[j])) for i, j in pairs]
        return [each / float(np.mean(found)) for each in found]

    def angles(points: Values) -> list[float]:
        found = []
        for i, j, k in itertools.permutations(samples, 3):
            one, other = points[i] - points[j], points[k] - points[j]
            found.append(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
        return found

    parts = [
        np.mean([huber(s - t) for s, t in zip(relation(student), relation(teacher), strict=True)])
        for relation in (distances, angles)
    ]
    return distance_weight * parts[0] + angle_weight * parts[1]


@pytest.mark.parametrize("weights", [(1.0, 2.0), (25.0, 50.0), (0.0, 1.0)])
def test_relations_follow_their_formula(weights: tuple[float, float]) -> None:
    student, teacher = draw((6, 3), (6, 8))
    student[0] *= 8  # far enough out that Huber's loss is linear there
    seen = paired([student], [teacher])
    signal = prepared("relations", seen, distance_weight=weights[0], angle_weight=weights[1])
    assert signal(seen).item() == pytest.approx(relations(numbers(student), numbers(teacher), *weights), rel=1e-5)


def test_relations_of_maps_are_those_of_their_means() -> None:
    student, teacher = draw((5, 3, 4, 4), (5, 6, 4, 4))
    seen = paired([student], [teacher])
    expected = relations(numbers(student).mean((2, 3)), numbers(teacher).mean((2, 3)), 1, 2)
    assert prepared("relations", seen)(seen).item() == pytest.approx(expected, rel=1e-5)


def test_relations_do_not_change_with_scale_and_rotation() -> None:
    (teacher,) = draw((6, 4))
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(7)))
    seen = paired([5 * teacher @ rotation + 3], [teacher])
    assert prepared("relations", seen)(seen).item() == pytest.approx(0, abs=1e-9)


def test_equal_samples_have_no_direction_and_finite_gradients() -> None:
    student, teacher = draw((6, 4), (6, 4))
    student[1] = student[0]
    student.requires_grad_()
    seen = paired([student], [teacher])
    prepared("relations", seen)(seen).backward()
    assert torch.isfinite(student.grad).all() and 0 < student.grad.abs().max() < 10


@pytest.mark.parametrize(("name", "samples"), [("relations", 2), ("contrastive", 1)])
def test_a_batch_that_is_too_small_to_compare_samples_is_refused(name: str, samples: int) -> None:
    student, teacher = draw((samples, 4), (samples, 4))
    with pytest.raises(PenjingError, match="batch"):
        prepared(name, paired([student], [teacher]))


@pytest.mark.parametrize("name", ["relations", "contrastive"])
def test_a_last_batch_of_one_sample_has_no_loss(name: str) -> None:
    student, teacher = draw((6, 4), (6, 4))
    signal = prepared(name, paired([student], [teacher]))
    student.requires_grad_()
    loss = signal(paired([student[:1]], [teacher[:1]]))
    loss.backward()
    assert loss.item() == 0 and not student.grad.any()


# Factor transfer


def leaky(values: Values) -> Values:
    return np.where(values > 0, values, 0.1 * values)


def test_factor_transfer_follows_its_formula() -> None:
    student, teacher = draw((3, 4), (3, 6))
    seen = paired([student], [teacher])
    signal = prepared("factor", seen)

    def through(network: nn.Module, values: Values) -> Values:
        for layer in network[::2]:
            values = leaky(values @ numbers(layer.weight).T + numbers(layer.bias))
        return values

    factors = through(signal.encoders[0], numbers(teacher))
    rebuilt = through(signal.decoders[0], factors)
    translated = through(signal.translators[0], numbers(student))
    assert factors.shape == translated.shape == (3, 3)
    transfer = [
        np.abs(own / np.linalg.norm(own) - target / np.linalg.norm(target)).sum()
        for own, target in zip(translated, factors, strict=True)
    ]
    off = ((numbers(teacher) - rebuilt) ** 2).sum() / (numbers(teacher) ** 2).sum()
    assert signal(seen).item() == pytest.approx(np.mean(transfer) + off, rel=1e-5)


def test_the_paraphraser_learns_from_its_reconstruction_alone() -> None:
    student, teacher = draw((3, 4, 5, 5), (3, 6, 5, 5))
    seen = paired([student.requires_grad_()], [teacher])
    signal = prepared("factor", seen)
    signal(seen).backward()
    found = [parameter.grad.clone() for parameter in signal.encoders.parameters()]
    signal.zero_grad()
    rebuilt = signal.decoders[0](signal.encoders[0](teacher))
    ((teacher - rebuilt).square().sum() / teacher.square().sum()).backward()
    for gradient, parameter in zip(found, signal.encoders.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


# Contrastive


def test_the_contrastive_loss_follows_its_formula() -> None:
    student, teacher = draw((5, 4), (5, 6))
    seen = paired([student], [teacher])
    signal = prepared("contrastive", seen, tau=0.2, dimension=3)

    def embedded(linear: nn.Module, values: Values) -> Values:
        made = values @ numbers(linear.weight).T + numbers(linear.bias)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    own, target = embedded(signal.students[0], numbers(student)), embedded(signal.teachers[0], numbers(teacher))
    expected = 0.0
    for i, j in np.ndindex(5, 5):
        critic = math.exp(own[i] @ target[j] / 0.2)
        h = critic / (critic + 4 / 5)  # four negatives among five samples
        expected -= (math.log(h) if i == j else math.log(1 - h)) / 5
    assert signal(seen).item() == pytest.approx(expected, rel=1e-5)


# Transformer


def scores(queries: Tensor, keys: Tensor, n: int, head: int) -> Values:
    return numbers(queries)[n, head] @ numbers(keys)[n, head].T / math.sqrt(queries.shape[3])


def test_tinyberts_loss_follows_its_formula() -> None:
    students = draw((2, 4, 6), (2, 4, 6), (2, 3, 4, 5), (2, 3, 4, 5))
    teachers = draw((2, 4, 8), (2, 4, 6), (2, 3, 4, 7), (2, 3, 4, 7))
    seen = paired(students, teachers)
    signal = prepared("transformer", seen)
    (weight,) = (numbers(parameter) for parameter in signal.parameters())  # of the first block alone, without bias
    hidden = ((numbers(students[0]) @ weight.T - numbers(teachers[0])) ** 2).mean()
    hidden += ((numbers(students[1]) - numbers(teachers[1])) ** 2).mean()
    attention = np.mean(
        [
            ((scores(*students[2:], n, head) - scores(*teachers[2:], n, head)) ** 2).mean()
            for n, head in np.ndindex(2, 3)
        ]
    )
    assert signal(seen).item() == pytest.approx(hidden + attention, rel=1e-5)


def test_hidden_states_alone_are_enough_for_a_transformer() -> None:
    student, teacher = draw((2, 4, 6), (2, 4, 6))
    seen = paired([student], [teacher])
    expected = ((numbers(student) - numbers(teacher)) ** 2).mean()
    assert prepared("transformer", seen)(seen).item() == pytest.approx(expected)


def test_other_heads_are_compared_by_their_mean() -> None:
    students, teachers = draw((2, 2, 4, 5), (2, 2, 4, 5)), draw((2, 3, 4, 5), (2, 3, 4, 5))
    seen = paired(students, teachers)
    expected = [
        (np.mean([scores(*students, n, head) for head in range(2)], 0))
        - (np.mean([scores(*teachers, n, head) for head in range(3)], 0))
        for n in range(2)
    ]
    assert prepared("transformer", seen)(seen).item() == pytest.approx((np.array(expected) ** 2).mean(), rel=1e-5)


def test_attention_to_and_of_padding_is_left_out() -> None:
    students, teachers = draw((1, 2, 4, 5), (1, 2, 4, 5)), draw((1, 2, 4, 6), (1, 2, 4, 6))
    counted = torch.tensor([[True, True, True, False]])
    seen = paired(students, teachers, counted)
    apart = [(scores(*students, 0, head) - scores(*teachers, 0, head))[:3, :3] ** 2 for head in range(2)]
    assert prepared("transformer", seen)(seen).item() == pytest.approx(np.mean(apart), rel=1e-5)


@pytest.mark.parametrize(
    ("students", "teachers", "said"),
    [
        ([(2, 2, 4, 5)], [(2, 2, 4, 5)], "queries and keys"),
        ([(2, 6)], [(2, 6)], r"\(2, 6\).*taps="),
        ([(2, 2, 4, 5)] * 2, [(2, 2, 9, 5)] * 2, r"\(2, 2, 4, 5\).*\(2, 2, 9, 5\)"),
    ],
)
def test_what_no_transformer_gives_is_refused(
    students: list[tuple[int, ...]], teachers: list[tuple[int, ...]], said: str
) -> None:
    with pytest.raises(PenjingError, match=said):
        prepared("transformer", paired(draw(*students), draw(*teachers)))
