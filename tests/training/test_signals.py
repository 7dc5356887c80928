"""Training with any signal that is registered, by its name alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_fakes import Batches, Net, data, same_weights

from penjing.distillation import Comparison, Signal, balances, signals
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.tasks import Classification
from penjing.training import recover

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False}


def test_a_signal_of_one_s_own_sees_both_networks_and_its_parameters_are_trained_beside_the_student(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Comparison] = []
    made: list[Signal] = []

    class Own(Signal):
        """Asks for the teacher's outputs, as a learned scale of the student's."""

        def __init__(self, temperature: float = 1.0) -> None:
            super().__init__()
            self.temperature = temperature
            made.append(self)

        def prepare(self, seen: Comparison) -> None:
            self.scale = nn.Parameter(torch.ones(seen.student.outputs.shape[1]))

        def forward(self, given: Comparison) -> Tensor:
            seen.append(given)
            return (self.scale * given.student.outputs - given.teacher.outputs).abs().mean()

    monkeypatch.setattr(signals, "_entries", dict(signals._entries))
    signals.register(source="this test", name="own")(Own)
    before, net = Net(2), Net(2)
    recover(net, data(), Net(1), 1, signal="own", temperature=2.5, distill_weight=1.0, **PLAIN)
    assert {(one.student.outputs.shape, one.teacher.outputs.shape) for one in seen} == {((16, 4), (16, 4))}
    assert len(seen) == 10 and all(one.targets is not None for one in seen)
    assert not torch.equal(net.linear.weight, before.linear.weight)
    assert made[0].temperature == 2.5 and not torch.equal(made[0].scale, torch.ones(4))
    assert net.state_dict().keys() == before.state_dict().keys()


class Inside(Signal):
    """Asks for the teacher's inner values."""

    taps = "blocks"

    def forward(self, given: Comparison) -> Tensor:
        pairs = zip(given.student.taps, given.teacher.taps, strict=True)
        return torch.stack([(own - other.detach()).square().mean() for own, other in pairs]).sum()


@pytest.mark.parametrize("captured", [True, False], ids=["graph", "module"])
def test_values_inside_are_seen_of_graphs_and_of_modules_by_their_names(
    captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_entries", dict(signals._entries))
    signals.register(source="this test", name="inside")(Inside)
    nets: list[Any] = [Net(2).eval(), Net(1).eval()]
    student, teacher = [capture(net, torch.randn(2, 3, 8, 8)) for net in nets] if captured else nets
    losses: list[Any] = []
    how: dict[str, Any] = {**PLAIN, "lr": 0.05, "signal": "inside", "distill_weight": 1.0, "report": losses.append}
    recover(student, data(), teacher, 3, taps="conv", **how)
    assert losses[-1]["losses"]["guidance"] < 0.5 * losses[0]["losses"]["guidance"]
    assert not nets[0].conv._forward_hooks, "what was hung into the user's module is gone"
    with pytest.raises(PenjingError, match=r"convx.*Did you mean 'conv'"):
        recover(student, data(), teacher, 1, taps="convx", **how)


def test_a_run_with_learned_parts_goes_on_where_it_was_stopped(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Learns(Inside):
        """Asks for the teacher's outputs, as a learned scale of the student's."""

        taps = ""

        def prepare(self, seen: Comparison) -> None:
            self.scale = nn.Parameter(torch.randn(seen.student.outputs.shape[1]))

        def forward(self, given: Comparison) -> Tensor:
            return (self.scale * given.student.outputs - given.teacher.outputs).square().mean()

    monkeypatch.setattr(signals, "_entries", dict(signals._entries))
    signals.register(source="this test", name="learns")(Learns)
    how: dict[str, Any] = {**PLAIN, "signal": "learns", "balance": "auto", "schedule": "anneal"}
    whole, parts = Net(2), Net(2)
    recover(whole, data(), Net(1), 2, **how)

    def stops(graph: nn.Module, share: float) -> None:
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(parts, data(), Net(1), 2, checkpoint=tmp_path / "run", save_every=0, callbacks=[stops], **how)
    recover(parts := Net(2), data(), Net(1), 2, checkpoint=tmp_path / "run", **how)
    assert same_weights(whole, parts)


def test_the_schedule_decides_when_labels_and_when_the_teacher_count() -> None:
    told: list[Any] = []
    recover(Net(2), data(), Net(1), 10, schedule="staged", report=told.append, **PLAIN)
    assert [set(epoch["losses"]) for epoch in told[:3]] == [{"guidance"}] * 3
    assert all(set(epoch["losses"]) == {"task", "guidance"} for epoch in told[3:])


def test_a_loss_is_averaged_over_the_steps_that_had_it() -> None:
    class Two(Classification):
        def loss(self, outputs: Any, targets: Tensor) -> Tensor:
            return 2 + 0 * outputs.sum()

    told: list[Any] = []
    recover(Net(2), replace(data(), task=Two()), Net(1), 2, schedule="staged", report=told.append, **PLAIN)
    assert [epoch["losses"]["task"] for epoch in told] == [2, 2], "six of the first ten steps are the teacher's alone"


@pytest.mark.parametrize("balance", list(balances))
def test_every_balance_trains_and_says_what_it_measured(balance: str) -> None:
    told: list[Any] = []
    recover(Net(2), data(), Net(1), 4, lr=0.05, balance=balance, report=told.append, **PLAIN)
    assert told[-1]["loss"] < told[0]["loss"]
    assert set(told[-1]["balance"]) == {"fixed": set(), "pcgrad": {"conflicts"}}.get(balance, {"balance"})


def test_unknown_names_are_told_with_the_nearest() -> None:
    for choice, near in (
        ({"balance": "fixd"}, "fixed"),
        ({"schedule": "stagd"}, "staged"),
        ({"signal": "soft_label"}, "soft_labels"),
    ):
        with pytest.raises(PenjingError, match=f"Did you mean '{near}'"):
            recover(Net(), data(), Net(1), 1, **choice, **PLAIN)


def test_without_a_teacher_no_signal_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.training.objective.signals", {})
    net = Net()
    recover(net, data(), epochs=1, **PLAIN)
    assert isinstance(net, nn.Module) and not torch.equal(net.linear.weight, Net().linear.weight)


def test_nothing_stays_in_the_user_s_module_if_the_run_can_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    net = Net(2)
    with pytest.raises(PenjingError, match="can't be written"):
        recover(
            net, data(), Net(1), 1, signal="hints", taps="conv", checkpoint=tmp_path / "file" / "run.pt", **PLAIN
        )  # fmt: skip
    assert not net.conv._forward_hooks and not net.training


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"taps": "conv"}, "compares outputs alone"),
        ({"taps": 3, "signal": "hints"}, "taps=3"),
        ({"taps": {"conv": 1}, "signal": "hints"}, "taps="),
    ],
)
def test_taps_that_have_no_effect_or_no_meaning_are_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        recover(Net(), data(), Net(1), 1, **choices, **PLAIN)


@pytest.mark.parametrize("name", [name for name in signals if "labels" in signals[name].needs])
def test_a_signal_that_needs_labels_says_so_before_the_first_step(name: str) -> None:
    net, steps = Net(), []
    with pytest.raises(PenjingError, match=f"'{name}' needs labels"):
        recover(net, data(Batches(labelled=False), labelled=False), Net(1), 1, signal=name,
                callbacks=[lambda graph, share: steps.append(share)], **PLAIN)  # fmt: skip
    assert not steps


def head_alone() -> Net:
    """Returns a network of which nothing in front of the last layer is trained."""
    net = Net(2).requires_grad_(False)
    net.linear.requires_grad_()
    return net


def test_a_loss_that_nothing_trained_takes_part_in_is_refused() -> None:
    with pytest.raises(PenjingError, match="nothing to learn"):
        recover(head_alone(), data(), Net(1), 1, signal="hints", taps="conv", schedule="staged", **PLAIN)


@pytest.mark.parametrize("balance", list(balances))
def test_guidance_of_frozen_layers_leaves_the_rest_to_the_labels(balance: str) -> None:
    net, before = head_alone(), head_alone()
    recover(net, data(), Net(1), 1, signal="hints", taps="conv", balance=balance, **PLAIN)
    assert not torch.equal(net.linear.weight, before.linear.weight)
    assert torch.equal(net.conv.weight, before.conv.weight)


def test_targets_may_be_of_any_kind_that_the_task_understands() -> None:
    class Named(Classification):
        def split(self, batch: Any) -> Any:
            return (batch[0],), {"labels": batch[1]}

        def loss(self, outputs: Any, targets: Any) -> Tensor:
            return super().loss(outputs, targets["labels"])

    named, plain = Net(2), Net(2)
    recover(named, replace(data(), task=Named()), Net(1), 1, **PLAIN)
    recover(plain, data(), Net(1), 1, **PLAIN)
    assert same_weights(named, plain)
