"""The learning rate of a training for which nobody names one."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_fakes import Batches, Net, data, same_weights

import penjing as pj
from penjing.data import Data
from penjing.distillation.teachers import One
from penjing.quantization import QuantizedTraining
from penjing.tasks import Classification
from penjing.training import TrainingSettings, recover
from penjing.training.objective import Objective
from penjing.training.rates import COARSE, SHARES, find_rate, loss_after
from penjing.training.settings import Variant

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False}
USUAL = 0.1  # of 128 samples


class Bowl(nn.Module):
    """A single weight, 1 at first, with the loss ½ · curvature · weight²."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Steep:
    """The task of a bowl."""

    labelled = True
    metric_name = "none"

    def __init__(self, curvature: float) -> None:
        self.curvature = curvature

    def split(self, batch: Any) -> Any:
        return (batch[0],), batch[1]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * self.curvature * outputs.square().mean()

    def metric(self) -> Any:
        raise NotImplementedError("nothing is judged")


ONES = [(torch.ones(128, 1), torch.zeros(128))] * 20


def expected(curvature: float, rate: float, steps: int = 10) -> float:
    """The loss after gradient descent on a bowl, with a rate that rises up to half of the steps."""
    rates = rate * np.minimum(1.0, 2 * np.arange(1, steps + 1) / steps)
    return float(0.5 * curvature * np.prod(1 - rates * curvature) ** 2)


def found(curvature: float, total: int = 400, processes: int = 1) -> tuple[float, str]:
    """The rate that is found for a bowl, and what is said about it."""
    settings = TrainingSettings(
        momentum=0.0, weight_decay=0.0, clip_norm=None, precision="float32", channels_last=False
    )
    objective, lines = Objective(Steep(curvature), None, settings, torch.device("cpu"), processes), [""]
    rate = find_rate(Bowl(), objective, ONES, ONES[:3], Variant(), USUAL, total, lines.append)
    return rate, lines[-1]


@pytest.mark.parametrize("curvature", [6, 20, 60, 200, 600])
def test_it_goes_down_as_long_as_a_smaller_rate_is_clearly_better(curvature: float) -> None:
    rate, said = found(curvature)
    losses = [expected(curvature, USUAL * share) for share in SHARES]
    margin = 1 + 0.02 * math.sqrt(400 / 10)
    best = next(i for i in range(len(SHARES)) if i + 1 == len(SHARES) or losses[i] <= margin * losses[i + 1])
    assert rate == pytest.approx(USUAL * SHARES[best])
    told = ", ".join(f"{losses[i]:.3g} at {USUAL * SHARES[i]:.2g}" for i in range(min(best + 2, len(SHARES))))
    assert said == f"Learning rate {rate:.2g}, by the loss after 10 steps each: {told}."


def test_no_rate_is_taken_at_which_the_loss_is_not_finite() -> None:
    rate, said = found(1e10)
    assert rate == pytest.approx(USUAL * SHARES[-1]) and said.count("inf at") == len(SHARES)


def test_a_long_run_must_gain_more_to_take_a_smaller_rate() -> None:
    curvature = next(c for c in np.linspace(6, 30, 500) if expected(c, USUAL) > 1.5 * expected(c, 0.3 * USUAL))
    assert 0.02 * math.sqrt(400 / 10) < 0.5 < 0.02 * math.sqrt(40_000 / 10)
    assert found(curvature, 400)[0] == pytest.approx(0.3 * USUAL) and found(curvature, 40_000)[0] == USUAL


@pytest.mark.parametrize(("total", "trials", "steps"), [(39, 0, 0), (40, 2, 5), (60, 3, 5), (100, 5, 5), (300, 5, 10)])
def test_at_most_a_quarter_of_a_run_s_steps_is_tried(total: int, trials: int, steps: int) -> None:
    rate, said = found(1e10, total)  # which goes through all rates
    assert said.count("inf at") == trials and trials * steps <= total / 4
    shares = SHARES if trials == len(SHARES) else COARSE[:trials]
    assert rate == pytest.approx(USUAL * (shares[-1] if trials else 1.0))
    assert f"{steps} steps each" in said if trials else not said


def test_several_processes_find_the_rate_of_the_batch_that_they_share() -> None:
    assert found(60.0, 800, processes=2)[0] == found(60.0, 400)[0]
    assert found(1e10, 79, processes=2) == (USUAL, ""), "each of them takes the steps of both"


def test_the_rate_is_kept_when_a_run_goes_on(tmp_path: Path) -> None:
    bowls, path = Data(ONES, None, None, Steep(60.0)), tmp_path / "run.pt"
    how: dict[str, Any] = {"epochs": 5, "momentum": 0.0, "clip_norm": None, **PLAIN}
    whole, lines = recover(Bowl(), bowls, log=(said := list[str]()).append, **how), list[str]()

    def fail(graph: nn.Module, share: float) -> None:
        if share > 0.5:
            raise RuntimeError("power cut")

    fail.same_throughout = True
    with pytest.raises(RuntimeError):
        recover(Bowl(), bowls, checkpoint=path, callbacks=[fail], **how)
    assert same_weights(recover(Bowl(), bowls, checkpoint=path, log=lines.append, **how), whole)
    assert [line for line in said if "Learning rate 0.01," in line] and not any("Learning" in line for line in lines)
    assert torch.load(path, weights_only=True)["standing"]["lr"] == pytest.approx(0.01)


def test_a_rate_that_is_named_is_taken_untried() -> None:
    lines: list[str] = []
    bowls = Data(ONES, None, None, Steep(60.0))
    recover(Bowl(), bowls, epochs=5, lr=0.01, momentum=0.0, clip_norm=None, log=lines.append, **PLAIN)
    assert not lines


@pytest.mark.parametrize("same", [True, False])
def test_steps_on_a_graph_that_callbacks_change_on_the_way_tell_nothing(same: bool) -> None:
    def callback(graph: nn.Module, share: float) -> None:
        return None

    callback.same_throughout = same
    how: dict[str, Any] = {
        "epochs": 5,
        "momentum": 0.0,
        "clip_norm": None,
        "log": (lines := list[str]()).append,
        **PLAIN,
    }
    recover(Bowl(), Data(ONES, None, None, Steep(6.0)), callbacks=[callback], **how)
    assert len(lines) == same


@pytest.mark.parametrize("stages", [(), (8, 4)])
def test_roundings_of_the_same_bits_throughout_let_a_rate_be_tried(stages: Any) -> None:
    graph = pj.capture(nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4))
    assert QuantizedTraining(graph, activations=None, weights="ternary", stages=stages).same_throughout == (not stages)


@pytest.mark.parametrize("balance", ["auto", "uncertainty"])
def test_trials_leave_everything_as_it_was_and_are_alike(balance: str) -> None:
    net, batches = Net().train(), Batches()
    settings = TrainingSettings(
        signal="contrastive", balance=balance, taps="conv", precision="float32", channels_last=False
    )
    objective = Objective(Classification(), One(Net(1)), settings, torch.device("cpu"))
    objective.prepare(net, next(iter(batches)))
    assert objective.signal is not None
    everything = nn.ModuleList([net, objective.signal, objective.balance])
    before, held = copy.deepcopy(everything), list(batches)[:2]
    one, again, other = (loss_after(net, objective, batches, held, Variant(), lr, 5) for lr in (0.1, 0.1, 0.01))
    assert one == again != other
    assert same_weights(everything, before) and net.training
    assert all(parameter.grad is None for parameter in everything.parameters())


class Short(Batches):
    """Says that it has more batches than it gives."""

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return iter(list(super().__iter__())[:2])


def test_a_loader_with_fewer_batches_than_it_says_ends_all_the_same() -> None:
    with pytest.raises(Exception, match="gave fewer"):
        recover(Net(), data(Short()), epochs=40, **PLAIN)
