"""What holds of every signal, whatever it asks for."""

import copy
import inspect

import pytest
import torch
from scenes import SCENES, batch, comparison, networks
from torch import Tensor

from penjing.distillation import Comparison, Seen, Signal, signals
from penjing.errors import PenjingError

TAPPED = [name for name in signals if signals[name].function.taps]
OF_OUTPUTS = [
    name for name in signals if not (signals[name].function.taps or name in ("gradients", "gradient_sharing"))
]
LEAST_AT_THE_TEACHER = [
    scene for scene in SCENES if scene[0] not in ("hard_labels", "gradient_sharing", "contrastive", "factor")
]
PADDED = [(name, kind) for name, kind in SCENES if kind != "vectors" and name != "gradient_sharing"]


def made(name: str, kind: str) -> Signal:
    """Returns a signal with its choices at their defaults, prepared for the two networks."""
    signal = signals[name].function()
    torch.manual_seed(2)
    with torch.no_grad():
        signal.prepare(comparison(signal, kind, *networks(kind)))
    return signal


@pytest.mark.parametrize("name", signals)
def test_a_signal_says_what_it_is_and_who_described_it(name: str) -> None:
    assert signals[name].name == name and signals[name].source and signals[name].summary


@pytest.mark.parametrize(("name", "kind"), SCENES)
def test_a_loss_teaches_the_student_and_leaves_the_teacher_alone(name: str, kind: str) -> None:
    signal, (student, teacher) = made(name, kind), networks(kind)
    teacher.requires_grad_()  # more than a trainer does
    loss = signal(comparison(signal, kind, student, teacher))
    assert loss.shape == () and loss.dtype == torch.float32 and torch.isfinite(loss)
    loss.backward()
    found = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in found)
    assert sum(float(gradient.abs().sum()) for gradient in found) > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in signal.parameters())


@pytest.mark.parametrize(("name", "kind"), SCENES)
def test_a_loss_of_bf16_values_is_summed_in_float32(name: str, kind: str) -> None:
    signal, (student, teacher) = made(name, kind), networks(kind)
    with torch.autocast("cpu", torch.bfloat16):
        seen = comparison(signal, kind, student, teacher)
        assert all(tap.dtype == torch.bfloat16 for tap in seen.student.taps) or seen.student.taps == []
        within = signal(seen)
    assert within.dtype == torch.float32
    plain = signal(comparison(signal, kind, student, teacher))
    assert within.item() == signal(seen).item() == pytest.approx(plain.item(), rel=0.05, abs=0.05)


@pytest.mark.parametrize(("name", "kind"), SCENES)
def test_training_lowers_the_loss(name: str, kind: str) -> None:
    signal, (student, teacher) = made(name, kind), networks(kind)
    optimizer = torch.optim.Adam([*student.parameters(), *signal.parameters()], 0.01)
    losses = []
    for _ in range(25):
        loss = signal(comparison(signal, kind, student, teacher))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1 * abs(losses[0])


@pytest.mark.parametrize(("name", "kind"), LEAST_AT_THE_TEACHER)
def test_a_student_that_equals_its_teacher_has_no_loss(name: str, kind: str) -> None:
    signal, (_, teacher) = signals[name].function(), networks(kind)
    with torch.no_grad():
        signal.prepare(comparison(signal, kind, teacher, teacher))
    assert signal(comparison(signal, kind, teacher, teacher)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("name", "kind"), LEAST_AT_THE_TEACHER)
def test_a_student_that_equals_its_teacher_learns_nothing_more(name: str, kind: str) -> None:
    signal, (_, teacher) = signals[name].function(), networks(kind)
    student = copy.deepcopy(teacher).requires_grad_()
    with torch.no_grad():
        signal.prepare(comparison(signal, kind, student, teacher))
    signal(comparison(signal, kind, student, teacher)).backward()
    for parameter in student.parameters():
        assert parameter.grad is None or parameter.grad.abs().max() < 1e-5


@pytest.mark.parametrize(("name", "kind"), SCENES)
def test_a_signal_leaves_values_as_they_were_and_says_the_same_of_them_again(name: str, kind: str) -> None:
    signal, (student, teacher) = made(name, kind), networks(kind)
    seen = comparison(signal, kind, student, teacher)
    values = [seen.student.outputs, *seen.student.taps, seen.teacher.outputs, *seen.teacher.taps]
    before = [value.detach().clone() for value in values]
    first = signal(seen)
    assert all(torch.equal(value, old) for value, old in zip(values, before, strict=True))
    assert torch.equal(first, signal(seen))


@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_of_nested_outputs_the_mean_is_taken(name: str) -> None:
    signal, targets = signals[name].function(), torch.tensor([0, 2, 1])
    students, teachers = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(4))
    single = [
        signal(Comparison(Seen(own), Seen(target), targets=targets))
        for own, target in zip(students, teachers, strict=True)
    ]
    nested = [{"one": side[0], "two": (side[1], 7)} for side in (students, teachers)]
    loss = signal(Comparison(Seen(nested[0]), Seen(nested[1]), targets=targets))
    assert loss.item() == pytest.approx(sum(each.item() for each in single) / 2)


@pytest.mark.parametrize("name", [*OF_OUTPUTS, "gradients"])
def test_outputs_of_other_shapes_than_the_teachers_are_refused(name: str) -> None:
    seen = Comparison(Seen(torch.zeros(8, 10)), Seen(torch.zeros(8, 9)), targets=torch.zeros(8, dtype=torch.long))
    with pytest.raises(PenjingError, match=r"\(8, 10\).*\(8, 9\)"):
        signals[name].function()(seen)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("name", OF_OUTPUTS)
def test_a_loss_is_finite_at_any_temperature(name: str, temperature: float) -> None:
    choices = [choice for choice in inspect.signature(signals[name].function).parameters if "temperature" in choice]
    signal, targets = signals[name].function(**dict.fromkeys(choices, temperature)), torch.tensor([0, 2, 1])
    student, teacher = 100 * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(4))
    student.requires_grad_()
    loss = signal(Comparison(Seen(student), Seen(teacher), targets=targets))
    loss.backward()
    assert torch.isfinite(loss) and loss > 0 and torch.isfinite(student.grad).all()


def some_padding(kind: str) -> Tensor:
    """Returns which positions count: of the first sample all, of the last none, of others some."""
    counted = torch.rand(batch(kind)[1].shape, generator=torch.Generator().manual_seed(3)) < 0.7
    counted[0], counted[-1] = True, False
    assert 0 < counted[1].float().mean() < 1
    return counted


@pytest.mark.parametrize(("name", "kind"), PADDED)
def test_padded_positions_count_for_nothing(name: str, kind: str) -> None:
    signal, (student, teacher) = made(name, kind), networks(kind)
    counted = some_padding(kind)

    def garbled(value: Tensor) -> Tensor:
        heads = kind == "sequences" and value.ndim == 4
        last = kind == "sequences" and value.ndim == 3 and value.shape[1] == counted.shape[1]
        where = counted[:, None, :, None] if heads else counted.unsqueeze(2 if last else 1)
        return torch.where(where, value, value * 30 + 5)

    loss, changed = (
        signal(comparison(signal, kind, student, teacher, counted, change)) for change in (lambda value: value, garbled)
    )
    assert loss.item() > 0 and changed.item() == pytest.approx(loss.item(), rel=1e-4)
    assert loss.item() != signal(comparison(signal, kind, student, teacher)).item()


@pytest.mark.parametrize(("name", "kind"), PADDED)
def test_a_batch_of_padding_alone_has_no_loss(name: str, kind: str) -> None:
    signal, (student, teacher) = made(name, kind), networks(kind)
    counted = torch.zeros(batch(kind)[1].shape, dtype=torch.bool)
    loss = signal(comparison(signal, kind, student, teacher, counted))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in student.parameters())


@pytest.mark.parametrize(("name", "kind"), [scene for scene in PADDED if scene[0] != "gradients"])
def test_samples_that_do_not_count_are_left_out(name: str, kind: str) -> None:
    signal, (student, teacher) = made(name, kind), networks(kind)
    kept = torch.tensor([True, True, False, True, True, False])
    seen = comparison(signal, kind, student, teacher)
    marked, cut = (
        Comparison(
            *(Seen(side.outputs[rows], [tap[rows] for tap in side.taps]) for side in (seen.student, seen.teacher)),
            targets=seen.targets[rows],
            counted=counted,
        )
        for rows, counted in ((slice(None), kept), (kept, None))
    )
    assert signal(marked).item() == pytest.approx(signal(cut).item(), rel=1e-4)


@pytest.mark.parametrize("name", TAPPED)
def test_a_signal_without_inner_values_says_what_to_pass(name: str) -> None:
    signal = signals[name].function()
    seen = Comparison(Seen(torch.zeros(2, 3)), Seen(torch.zeros(2, 3)))
    with pytest.raises(PenjingError, match=r"there are none.*taps="):
        signal.prepare(seen)
    with pytest.raises(PenjingError, match=r"there are none.*taps="):
        signal(seen)


@pytest.mark.parametrize("name", TAPPED)
def test_inner_values_without_a_partner_are_refused(name: str) -> None:
    tap = torch.zeros(4, 3, 6)
    with pytest.raises(PenjingError, match="gives 2 inner values and its teacher 1"):
        signals[name].function().prepare(Comparison(Seen(tap, [tap, tap]), Seen(tap, [tap])))


@pytest.mark.parametrize("name", TAPPED)
def test_values_with_other_axes_are_refused_with_both_shapes(name: str) -> None:
    map_, vector = torch.zeros(4, 3, 6, 6), torch.zeros(4, 3)
    with pytest.raises(PenjingError, match=r"\(4, 3, 6, 6\).*\(4, 3\).*taps=.*regressors="):
        signals[name].function().prepare(Comparison(Seen(map_, [map_]), Seen(map_, [vector])))


@pytest.mark.parametrize(("name", "kind"), SCENES)
def test_what_a_signal_learns_is_its_own_and_follows_the_seed(name: str, kind: str) -> None:
    one, other = made(name, kind).state_dict(), made(name, kind).state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    signal, (student, teacher) = made(name, kind), networks(kind)
    theirs = {id(parameter) for network in (student, teacher) for parameter in network.parameters()}
    assert not theirs & {id(parameter) for parameter in signal.parameters()}


def test_the_signals_that_learn_something_are_those_of_which_it_is_known() -> None:
    learning = {name for name, kind in SCENES if any(True for _ in made(name, kind).parameters())}
    assert learning == {"blocks", "contrastive", "factor", "features", "transformer"}  # widths are equal in the middle
