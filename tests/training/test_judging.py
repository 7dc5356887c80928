"""Judging after each epoch: ending at a value of the metric, and ending with the best weights."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import nn
from training_fakes import Batches, Net, data, same_weights

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.training import recover
from penjing.training.checkpoint import steps_of

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.1}
JUDGED = list(Batches(4))
EPOCHS = 4


def judged(validation: Any = JUDGED, **parts: Any) -> Data:
    return replace(data(**parts), validation=validation)


def accuracy(net: nn.Module) -> float:
    with torch.no_grad():
        return accuracy_score(
            torch.cat([y for _, y in JUDGED]), torch.cat([net.eval()(x).argmax(1) for x, _ in JUDGED])
        )


class Spoiling:
    """A callback that makes the network forget its classes behind the second epoch, and counts its calls."""

    def __init__(self) -> None:
        self.calls = torch.zeros(1)

    def __call__(self, graph: nn.Module, share: float) -> None:
        self.calls += 1
        if share > 0.5:
            with torch.no_grad():
                graph.linear.weight.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"].clone()


def test_the_weights_of_the_best_epoch_are_kept_with_what_callbacks_knew_then() -> None:
    net, spoiling, kept, told = Net(), Spoiling(), list[nn.Module](), list[dict[str, Any]]()

    def report(epoch: dict[str, Any]) -> None:
        told.append(epoch)
        kept.append(copy.deepcopy(net))

    lines: list[str] = []
    recover(net, judged(), epochs=EPOCHS, keep="best", callbacks=[spoiling], report=report, log=lines.append, **PLAIN)
    found = [accuracy(one) for one in kept]
    assert [epoch["metric"] for epoch in told] == pytest.approx(found)
    best = found.index(max(found))
    assert best < 2, "the network forgets behind the second epoch"
    assert same_weights(net, kept[best]) and int(spoiling.calls) == 10 * (best + 1)
    assert f"The weights of step {10 * (best + 1)} of 40 are kept" in lines[-1]


def test_the_last_weights_are_kept_unless_asked_and_nothing_is_judged() -> None:
    told = list[dict[str, Any]]()
    net = recover(Net(), judged(), epochs=EPOCHS, callbacks=[Spoiling()], report=told.append, **PLAIN)
    assert not net.linear.weight.any() and [epoch["metric"] for epoch in told] == [None] * EPOCHS


def test_judging_changes_nothing_in_the_training() -> None:
    plain = recover(Net(), judged(), epochs=2, **PLAIN)
    assert same_weights(recover(Net(), judged(), epochs=2, stop_at=2.0, **PLAIN), plain)


@pytest.mark.parametrize("stops_at", [0.3, 0.9])  # before and behind the best epoch
def test_the_best_weights_outlive_a_stop(tmp_path: Path, stops_at: float) -> None:
    how: dict[str, Any] = {"epochs": EPOCHS, "keep": "best", **PLAIN}
    whole = recover(Net(), judged(), callbacks=[Spoiling()], **how)

    class Failing(Spoiling):
        def __call__(self, graph: nn.Module, share: float) -> None:
            super().__call__(graph, share)
            if share > stops_at:
                raise RuntimeError("power cut")

    path, net = tmp_path / "run.pt", Net()
    with pytest.raises(RuntimeError):
        recover(net, judged(), checkpoint=path, callbacks=[Failing()], **how)
    resumed = recover(Net(), judged(), checkpoint=path, callbacks=[Spoiling()], **how)
    assert same_weights(resumed, whole)
    for graph in (resumed, Net()):  # a finished run is loaded, whichever weights it is asked with
        assert same_weights(recover(graph, judged(), checkpoint=path, callbacks=[Spoiling()], **how), whole)


def test_the_average_of_the_weights_is_judged_and_kept_where_there_is_one() -> None:
    how: dict[str, Any] = {"ema": 0.9, "reestimate_norms": False, **PLAIN, "lr": 0.002}
    told = list[dict[str, Any]]()
    net = recover(Net(), judged(), epochs=EPOCHS, keep="best", report=told.append, **how)
    found = [epoch["metric"] for epoch in told]
    assert accuracy(net) == pytest.approx(max(found))
    last = recover(Net(), judged(), epochs=EPOCHS, stop_at=2.0, report=told.append, **how)
    assert accuracy(last) == pytest.approx(found[-1]), "the average is what was judged"
    assert same_weights(last, recover(Net(), judged(), epochs=EPOCHS, **how)), "and training went on from the weights"


def test_masks_come_back_with_the_best_weights() -> None:
    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.masks = {"linear.weight": torch.ones(4, 8, dtype=torch.bool)}

        def apply_masks(self) -> None:
            self.linear.weight.data.mul_(self.masks["linear.weight"])

    def prune(graph: Any, share: float) -> None:
        graph.masks["linear.weight"].fill_(share <= 0.5)

    net = recover(Masked(), judged(), epochs=EPOCHS, keep="best", callbacks=[prune], **PLAIN)
    assert net.masks["linear.weight"].all() and net.linear.weight.all()


def test_training_ends_where_the_metric_is_good_enough_and_does_not_go_on(tmp_path: Path) -> None:
    first, slowly = list[dict[str, Any]](), {**PLAIN, "lr": 0.002}
    recover(Net(), judged(), epochs=EPOCHS, stop_at=9.0, report=first.append, **slowly)
    found = [epoch["metric"] for epoch in first]
    assert found[0] < max(found), "it must take more than an epoch"
    end = next(index for index, metric in enumerate(found) if metric >= max(found))
    told, lines, path = list[dict[str, Any]](), list[str](), tmp_path / "run.pt"
    how: dict[str, Any] = {"epochs": EPOCHS, "stop_at": max(found), "checkpoint": path, **slowly}
    net = recover(Net(), judged(), report=told.append, log=lines.append, **how)
    assert [epoch["metric"] for epoch in told] == found[: end + 1]
    assert told[-1]["progress"] == 1 and steps_of(path) == (10 * (end + 1),) * 2
    assert "reaches stop_at=" in lines[-1] and not any("longer than planned" in line for line in lines)
    again: list[dict[str, Any]] = []
    assert same_weights(recover(Net(), judged(), report=again.append, **how), net) and not again


def test_without_labels_agreement_with_the_teacher_is_judged() -> None:
    teacher, told = Net(1), list[dict[str, Any]]()
    unlabelled = judged([(x,) for x, _ in JUDGED], calibration=Batches(labelled=False), labelled=False)
    net = recover(Net(2), unlabelled, teacher, 2, stop_at=2.0, report=told.append, **PLAIN)
    with torch.no_grad():
        alike = torch.cat([net(x).argmax(1) == teacher.eval()(x).argmax(1) for x, _ in JUDGED])
    assert told[-1]["metric"] == pytest.approx(float(alike.float().mean()))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            {"keep": "best", "data": data()},
            r"keep='best' judges on the validation data, and data.validation .* is None",
        ),
        ({"stop_at": 0.5, "data": data()}, "stop_at=0.5 judges on the validation data"),
        ({"stop_at": 0.5, "data": judged([(x,) for x, _ in JUDGED])}, "has no labels: give labelled batches"),
        ({"keep": "bests"}, "keep='bests': it must be 'last' or 'best'"),
        ({"stop_at": float("nan")}, "stop_at=nan"),
    ],
)
def test_what_can_not_be_judged_is_said_plainly(how: dict[str, Any], words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        recover(**{"graph": Net(), "data": judged(), "epochs": 1, **PLAIN, **how})
