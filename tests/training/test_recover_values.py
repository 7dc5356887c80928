"""A teacher whose outputs are values, not classes."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_fakes import Batches, Net, data, same_weights

import penjing as pj
from penjing.errors import PenjingError
from penjing.tasks import Unlabelled
from penjing.training import recover

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False}
INPUTS = torch.randn(128, 4, generator=torch.Generator().manual_seed(0))
LOADER = [(rows,) for rows in INPUTS.split(32)]


def perceptron(columns: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(columns)
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, columns))


class Flat(nn.Module):
    """Gives outputs `(batch,)`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = perceptron(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[:, 0]


class Regression:
    """Single values, with a loss of their own."""

    labelled = True
    metric_name = "R²"

    def split(self, batch: Any) -> Any:
        return (batch[0],), batch[1]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs, targets)

    def metric(self) -> Any:
        raise NotImplementedError("training needs none")


def shifted(teacher: nn.Module, shift: float) -> nn.Module:
    """Returns a copy whose outputs are all larger by `shift`."""
    student = copy.deepcopy(teacher)
    list(student.parameters())[-1].data += shift
    return student


def unlabelled(answers: Any = "auto") -> pj.Data:
    return pj.Data(LOADER, LOADER, LOADER, Unlabelled(answers))


def differences(student: nn.Module, teacher: nn.Module) -> Tensor:
    with torch.no_grad():
        return student(INPUTS) - teacher(INPUTS)


@pytest.mark.parametrize(
    ("teacher", "answers"),
    [(perceptron(3), "values"), (perceptron(1), "auto"), (perceptron(1), "values"), (Flat(), "auto")],
)
def test_a_shift_that_all_outputs_have_in_common_is_unlearnt(teacher: nn.Module, answers: Any) -> None:
    student = shifted(teacher, 2.0)
    recover(student, unlabelled(answers), teacher, 40, lr=0.1, **PLAIN)
    left = differences(student, teacher)
    assert abs(left.mean()) < 0.02 and left.square().mean() < 0.01


def test_labels_and_a_teacher_with_a_single_output_are_learnt_from_together() -> None:
    teacher = perceptron(1)
    student, losses = shifted(teacher, 2.0), []
    with torch.no_grad():
        loader = [(rows, teacher(rows) + 1) for (rows,) in LOADER]
    labelled = pj.Data(loader, loader, None, Regression())
    recover(student, labelled, teacher, 40, lr=0.1, distill_weight=0.5, report=losses.append, **PLAIN)
    # Halfway between the two, each is missed by 0.5, so that 0.5 · 0.25 + 0.5 · 0.25 is the least loss there is.
    assert differences(student, teacher).mean() == pytest.approx(0.5, abs=0.02)
    assert losses[-1]["loss"] == pytest.approx(0.25, abs=0.01)


def test_soft_labels_of_a_single_output_are_refused_with_the_way_out() -> None:
    with pytest.raises(PenjingError, match='signal="values"'):
        recover(perceptron(1), unlabelled(), perceptron(1), 1, signal="soft_labels", **PLAIN)


def test_classes_are_learnt_by_soft_labels_unless_told_otherwise() -> None:
    chosen, named, others = (
        recover(Net(2), data(calibration=Batches(labelled=False), labelled=False), Net(1), 1, **PLAIN, **signal)
        for signal in ({}, {"signal": "soft_labels"}, {"signal": "values"})
    )
    assert same_weights(chosen, named) and not same_weights(chosen, others)


def test_a_network_with_a_single_output_is_pruned_gradually_and_trained_for_int8() -> None:
    graph = pj.capture(perceptron(1), (INPUTS[:16],))
    pruned = pj.prune(
        graph, 0.25, data=unlabelled(), schedule="iterative:2", epochs=1, drop="99%", teacher=graph, progress=False
    )
    pj.quantize(pruned, data=unlabelled(), epochs=1, teacher=graph, progress=False)
    assert len(next(iter(pruned.parameters()))) < len(next(iter(graph.parameters())))
