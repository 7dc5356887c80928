"""How good a network is, and how far that may fall: what both verbs judge by."""

from functools import cache

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.budget import Drop
from penjing.errors import PenjingError
from penjing.tasks import TOP_ONE, agreement, evaluate
from penjing.verbs._metric import least, metric_of


class Constant(nn.Linear):
    """Answers every input alike."""

    def __init__(self, value: float) -> None:
        super().__init__(6, 3)
        self.value = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 0 + self.value


def captured(model):
    return pj.capture(model.eval(), torch.randn(2, 6))


@cache
def linear(seed):
    torch.manual_seed(seed)
    return captured(nn.Linear(6, 3))


def data(labelled=True, count=4):
    inputs = torch.randn(count, 8, 6, generator=torch.Generator().manual_seed(1))
    batches = [(x, x[:, :3].argmax(1)) if labelled else (x,) for x in inputs]
    task = pj.tasks.Classification(3) if labelled else pj.tasks.Unlabelled()
    return pj.Data(None, None, batches, task)


def test_with_labels_the_metric_is_the_task_s():
    labelled = data()
    assert metric_of(linear(1), linear(0), labelled) == evaluate(linear(1), labelled.validation, labelled.task)


def test_without_labels_the_metric_is_the_agreement_with_the_original():
    unlabelled = data(labelled=False)
    expected = agreement(linear(0), linear(1), unlabelled.validation, unlabelled.task)
    assert metric_of(linear(1), linear(0), unlabelled) == expected < 1
    assert metric_of(linear(0), linear(0), unlabelled) == 1


def test_with_labels_the_limit_is_the_graph_s_metric_less_the_drop_and_nothing_is_told():
    labelled, told = data(), []
    expected = evaluate(linear(0), labelled.validation, labelled.task) - 0.02
    assert least(linear(0), labelled, Drop(0.02, False), told.append) == pytest.approx(expected) and told == []


def test_without_labels_the_limit_is_whole_agreement_less_the_drop_and_the_measure_is_told():
    told = []
    assert least(linear(0), data(labelled=False), Drop(0.02, False), told.append) == pytest.approx(0.98)
    assert told == [f"Without labels, agreement with the graph given stands in for the metric: {TOP_ONE}."]


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_drop_that_nothing_could_miss_is_refused(value):
    with pytest.raises(
        PenjingError, match=r"drop=0\.01 would protect nothing: .*every input of the validation data alike"
    ):
        least(captured(Constant(value)), data(labelled=False), Drop(0.01, False), print)


def test_a_metric_that_is_no_number_can_not_fall(monkeypatch):
    monkeypatch.setattr("penjing.verbs._metric.evaluate", lambda *_: float("-inf"))
    with pytest.raises(PenjingError, match=r"drop=0\.02: the accuracy of the graph given isn't a finite number"):
        least(linear(0), data(), Drop(0.02, False), print)
