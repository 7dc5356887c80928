"""Training with any signal that is registered, by its name alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_fakes import Batches, Net, data

from penjing.distillation import signals
from penjing.training import recover

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False}


@pytest.mark.parametrize("name", list(signals))
def test_every_signal_teaches_a_network_what_another_knows(name: str) -> None:
    teacher, student, losses = Net(1), Net(2), []
    unlabelled = data(calibration=Batches(labelled=False), labelled=False)
    recover(student, unlabelled, teacher, 3, lr=0.05, signal=name, report=losses.append, **PLAIN)
    assert losses[-1]["loss"] < losses[0]["loss"]


def test_a_signal_of_one_s_own_is_given_both_outputs_and_the_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, object, float]] = []

    def own(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """Asks for outputs of the teacher's size."""
        seen.append((student.shape, teacher.shape, temperature))
        return (student - teacher).abs().mean()

    monkeypatch.setattr(signals, "_entries", dict(signals._entries))
    signals.register(source="this test")(own)
    before, net = Net(2), Net(2)
    recover(net, data(), Net(1), 1, signal="own", temperature=2.5, distill_weight=1.0, **PLAIN)
    assert set(seen) == {(torch.Size([16, 4]), torch.Size([16, 4]), 2.5)} and len(seen) == 10
    assert not torch.equal(net.linear.weight, before.linear.weight)


def test_without_a_teacher_no_signal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.training.objective.signals", {})
    net = Net()
    recover(net, data(), epochs=1, **PLAIN)
    assert isinstance(net, nn.Module) and not torch.equal(net.linear.weight, Net().linear.weight)
