import copy
import math
import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training_fakes import Batches, Net, data, same_weights

from made_time import Time
from penjing.errors import PenjingError
from penjing.training import Interrupted, recover
from penjing.training.settings import Variant

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False}


def test_training_lowers_the_loss_and_returns_the_same_graph_in_eval_mode() -> None:
    net, epochs = Net(), []
    assert recover(net, data(), epochs=4, lr=0.1, report=epochs.append, **PLAIN) is net
    assert not net.training
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1]["loss"] < 0.7 * epochs[0]["loss"]
    assert epochs[-1]["progress"] == 1.0 and not epochs[-1]["stopped_early"]


def test_no_epochs_change_nothing() -> None:
    net = Net()
    recover(net, data(train=None, calibration=Batches()), epochs=0)
    assert same_weights(net, Net())


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    nets = [recover(Net(), data(), epochs=2, seed=seed, **PLAIN) for seed in (3, 3, 4)]
    assert same_weights(nets[0], nets[1])
    assert not same_weights(nets[0], nets[2])


def test_the_callers_random_generators_are_left_alone() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    recover(Net(), data(), epochs=1, progress=False)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


def test_any_data_loader_is_shuffled_anew_in_each_epoch_and_alike_in_each_run() -> None:
    x, y = Batches().x, Batches().y
    seen: list[torch.Tensor] = []

    class Watched(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                seen.append(x[:, 0, 0, 0])
            return super().forward(x)

    generator = torch.Generator()
    for _ in range(2):
        loader = DataLoader(TensorDataset(x, y), batch_size=40, shuffle=True, generator=generator)
        recover(Watched(), data(train=loader), epochs=2, **PLAIN)
    first, second = torch.cat(seen).view(2, 2, -1)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first[0].sort().values, first[1].sort().values)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_every_variant_learns_from_a_teacher(optimizer: Any, precision: Any, channels_last: bool) -> None:
    teacher, student, losses = Net(1).train(), Net(2), []
    before = copy.deepcopy(teacher)
    recover(student, data(), teacher, 3, lr=0.02, optimizer=optimizer, precision=precision,
            channels_last=channels_last, progress=False, report=lambda epoch: losses.append(epoch["loss"]))  # fmt: skip
    assert losses[-1] < losses[0]
    assert same_weights(teacher, before) and teacher.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    assert student.conv.weight.is_contiguous() and student.conv.weight.dtype == torch.float32


def test_unlabelled_calibration_images_and_a_teacher_are_enough() -> None:
    teacher, student = recover(Net(1), data(), epochs=5, lr=0.1, **PLAIN), Net(2)
    unlabelled = Batches(labelled=False)
    recover(student, data(calibration=unlabelled, labelled=False), teacher, 12, lr=0.1, **PLAIN)
    with torch.no_grad():
        agree = (student(unlabelled.x).argmax(1) == teacher(unlabelled.x).argmax(1)).float().mean()
    assert agree > 0.9


def test_masked_weights_stay_zero_and_callbacks_see_the_share_done() -> None:
    net, shares = Net(), []
    net.masks = {"conv.weight": torch.rand(8, 3, 3, 3) > 0.5}
    net.apply_masks = lambda: net.conv.weight.data.mul_(net.masks["conv.weight"])
    recover(net, data(), epochs=1, callbacks=[lambda graph, share: shares.append(share)], **PLAIN)
    assert (net.conv.weight[~net.masks["conv.weight"]] == 0).all()
    assert shares == pytest.approx([0.1 * step for step in range(1, 11)])


def test_only_weights_decay_not_norms_and_biases() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) @ torch.ones(3, 4) + 0 * (self.weight.sum() + self.bias.sum())

    net = recover(Idle(), data(), epochs=1, weight_decay=0.5, **PLAIN)
    assert (net.weight < 1).all() and (net.bias == 1).all()


def test_a_penalty_is_added_to_the_loss_of_the_steps_that_it_speaks_of() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) @ torch.ones(3, 4) + 0 * self.weight.sum()

    def penalty(net: nn.Module, share: float) -> torch.Tensor | None:
        shares.append(share)
        return net.weight[:2].sum() if share < 0.5 else None

    shares: list[float] = []
    net = recover(Idle(), data(), epochs=1, momentum=0.0, warmup=0.0, lr=0.1, penalty=penalty,
                  precision="float32", channels_last=False, progress=False)  # fmt: skip
    rates = [0.1 * 0.5 * (1 + math.cos(math.pi * (step + 0.5) / 10)) for step in range(5)]  # half a cosine
    torch.testing.assert_close(net.weight.detach(), torch.tensor([1 - sum(rates)] * 2 + [1.0] * 2))
    assert shares == pytest.approx([step / 10 for step in range(10)])


class Endless:
    """A loader that doesn't know how many batches it has."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        return iter(Batches())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": data(calibration=Batches())}, "data.train .* is None"),
        ({"data": data(train=Batches(labelled=False), labelled=False)}, "teacher="),
        ({"data": data(train=Batches(labelled=False))}, "teacher="),
        ({"data": data(train=Endless())}, "length"),
        ({"data": data(train=Batches(count=0))}, "0 batches"),
        ({"lr": 1e30, "clip_norm": None}, "smaller learning rate"),
        ({"optimizer": "adamv"}, "adamw"),
        ({"precision": "float16"}, "bfloat16"),
        ({"signal": "softlabels"}, "soft_labels"),
        ({"temperature": 0}, "temperature=0"),
        ({"seed": -1}, "seed=-1"),
        ({"epochs": -1}, "epochs=-1"),
        ({"graph": Net().requires_grad_(False)}, "nothing to train"),
    ],
)
def test_what_can_not_be_trained_is_said_plainly(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        recover(**{"graph": Net(), "data": data(), "epochs": 2, **PLAIN} | arguments)


def test_a_loader_that_gives_less_than_its_length_is_refused() -> None:
    class Short(Batches):
        def __len__(self) -> int:
            return 12

    with pytest.raises(PenjingError, match="gave fewer"):
        recover(Net(), data(train=Short()), epochs=2, **PLAIN)


def test_ctrl_c_stops_after_a_whole_step_and_tells_the_share_done() -> None:
    net = Net()

    def press_ctrl_c(graph: nn.Module, share: float) -> None:
        if share == 0.5:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        recover(net, data(), epochs=2, callbacks=[press_ctrl_c], **PLAIN)
    assert caught.value.progress == 0.5
    assert isinstance(caught.value, KeyboardInterrupt)
    assert not net.training and not same_weights(net, Net())
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    """A clock that only steps move, however fast the machine is."""
    made = Time(100.0)
    for module in ("run", "beginning", "deadline", "speed"):
        monkeypatch.setattr(f"penjing.training.{module}.time", made)
    return made


class Slow(Net):
    """Takes some seconds of a made-up clock for a forward pass."""

    def __init__(self, clock: Time, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock.sleep(self.seconds)
        return super().forward(x)


def tried(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Lets the steps that are tried before training take that long."""
    monkeypatch.setattr("penjing.training.beginning.step_seconds", lambda *_: {Variant(): seconds})


def test_a_deadline_shortens_the_schedule_so_that_it_ends_in_time(clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, 0.1)
    lines, epochs = [], []
    recover(Slow(clock, 0.1), data(), epochs=100, deadline=clock.now + 2, log=lines.append,
            report=epochs.append, **PLAIN)  # fmt: skip
    assert clock.now == pytest.approx(100 + 1.8), "nine tenths of the time are planned"
    assert "Shortening the training from 1000 to 18 steps, to be done in 2 s." in lines
    assert epochs[-1]["progress"] == 1 and not epochs[-1]["stopped_early"]


def test_steps_that_take_longer_than_thought_shorten_the_schedule_again(
    clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(monkeypatch, 1e-6)
    lines, epochs = [], []
    recover(Slow(clock, 0.04), data(), epochs=100, deadline=clock.now + 2, log=lines.append,
            report=epochs.append, **PLAIN)  # fmt: skip
    assert clock.now <= 102
    assert epochs[-1]["progress"] == 1 and epochs[-1]["lr"] < 0.001
    assert "longer than planned" in lines[-1]


def test_at_the_deadline_training_stops_whatever_was_planned(clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    tried(monkeypatch, 0.01)
    lines, epochs = [], []
    recover(Slow(clock, 0.3), data(), epochs=100, deadline=clock.now + 1, log=lines.append,
            report=epochs.append, **PLAIN)  # fmt: skip
    assert clock.now == pytest.approx(101.2), "the step in which the deadline came is the last"
    assert epochs[-1]["stopped_early"] and "stopped early" in lines[-1]


def test_a_deadline_that_is_over_trains_nothing(clock: Time) -> None:
    net = recover(Net(), data(), epochs=3, deadline=clock.now - 1, **PLAIN)
    assert same_weights(net, Net())


def test_the_bar_is_silent_unless_it_is_a_terminal_or_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    recover(Net(), data(), epochs=1, precision="float32", channels_last=False)
    assert capsys.readouterr() == ("", "")
    recover(Net(), data(), epochs=1, precision="float32", channels_last=False, progress="always")
    assert "loss" in capsys.readouterr().err
