"""The average of the weights, and what a run that averages ends with."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_fakes import Batches, Net, data, same_weights

from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.training import Interrupted, recover
from penjing.training.averaging import Average

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.1}


def averaged(weights: list[torch.Tensor], decay: float) -> torch.Tensor:
    """Returns the average by its formula, in float64."""
    average = weights[0].double()
    for step, weight in enumerate(weights[1:], 2):
        kept = min(decay, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * weight
    return average.float()


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.999])  # below, amid and above the share that early steps keep
def test_a_run_ends_with_the_average_of_the_weights_behind_each_step(decay: float) -> None:
    seen: dict[str, list[torch.Tensor]] = {}

    def watch(graph: nn.Module, share: float) -> None:
        for name, tensor in graph.state_dict().items():
            seen.setdefault(name, []).append(tensor.clone())

    net = recover(Net(), data(), epochs=1, ema=decay, reestimate_norms=False, callbacks=[watch], **PLAIN)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, averaged(seen[name], decay), msg=name)
        else:
            assert torch.equal(tensor, seen[name][-1]), name
    assert not torch.equal(net.conv.weight, seen["conv.weight"][-1])


def test_averaging_changes_no_step() -> None:
    plain, averaging = list[Any](), list[Any]()
    recover(Net(), data(), epochs=2, report=plain.append, **PLAIN)
    recover(Net(), data(), epochs=2, ema=0.9, report=averaging.append, **PLAIN)
    assert [epoch["loss"] for epoch in plain] == [epoch["loss"] for epoch in averaging]


def test_buffers_that_are_no_statistics_and_frozen_parameters_stay_the_last_step_s() -> None:
    class Counting(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.zeros(1))
            self.bn.bias.requires_grad_(False)

    def count(graph: Any, share: float) -> None:
        graph.scale += 1
        graph.bn.bias += 1

    net = recover(Counting(), data(), epochs=1, ema=0.9, callbacks=[count], **PLAIN)
    assert net.scale == 10 and (net.bn.bias == 10).all()


def masked() -> Graph:
    graph = capture(Net().eval(), torch.randn(2, 3, 8, 8))
    graph.masks = {"conv.weight": torch.ones(8, 3, 3, 3, dtype=torch.bool)}
    return graph


def test_what_was_masked_on_the_way_is_zero_in_the_average() -> None:
    def prune(graph: Any, share: float) -> None:
        if share > 0.45:
            graph.masks["conv.weight"][0] = False

    graph = recover(masked(), data(), epochs=1, ema=0.9, callbacks=[prune], **PLAIN)
    weight = graph.tensor("conv.weight")
    assert (weight[0] == 0).all() and (weight[1:] != 0).all()


def stops_at(share: float) -> Any:
    def callback(graph: nn.Module, done: float) -> None:
        if done >= share:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("share", [0.35, 1.0])  # amid an epoch, and behind the last step
def test_a_run_that_averages_goes_on_where_it_was_stopped(tmp_path: Path, share: float) -> None:
    how: dict[str, Any] = {"ema": 0.9, "epochs": 2, **PLAIN}
    whole = recover(Net(), data(), **how)
    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        recover(Net(), data(), checkpoint=file, save_every=0, callbacks=[stops_at(share)], **how)
    parts = recover(Net(), data(), checkpoint=file, **how)
    assert same_weights(parts, whole)
    again = recover(parts, data(), checkpoint=file, **how)
    assert again is parts and same_weights(again, whole), "the graph as the finished run left it is known"


def test_ctrl_c_leaves_the_weights_of_the_last_step_and_the_next_call_the_average(tmp_path: Path) -> None:
    def press_ctrl_c(graph: nn.Module, share: float) -> None:
        weights.append(graph.conv.weight.detach().clone())
        if share == 1:
            os.kill(os.getpid(), signal.SIGINT)

    weights: list[torch.Tensor] = []
    net, how = Net(), {"ema": 0.9, "epochs": 1, **PLAIN}
    with pytest.raises(Interrupted):
        recover(net, data(), checkpoint=tmp_path / "run.pt", callbacks=[press_ctrl_c], **how)
    assert torch.equal(net.conv.weight, weights[-1])
    recover(net, data(), checkpoint=tmp_path / "run.pt", **how)
    assert same_weights(net, recover(Net(), data(), **how))


def test_ctrl_c_while_statistics_are_computed_leaves_the_weights_of_the_last_step_too(tmp_path: Path) -> None:
    class Pressing(Batches):
        def __iter__(self) -> Any:
            for number, batch in enumerate(super().__iter__()):
                if self.epoch == 1 and number == 3:  # the epoch behind the last
                    os.kill(os.getpid(), signal.SIGINT)
                yield batch

    last: dict[str, torch.Tensor] = {}

    def watch(graph: nn.Module, share: float) -> None:
        last.update({name: tensor.clone() for name, tensor in graph.state_dict().items()})

    net, how = Net(), {"ema": 0.9, "epochs": 1, "checkpoint": tmp_path / "run.pt", **PLAIN}
    with pytest.raises(Interrupted):
        recover(net, data(Pressing()), callbacks=[watch], **how)
    assert all(torch.equal(tensor, last[name]) for name, tensor in net.state_dict().items())
    assert same_weights(recover(net, data(), **how), recover(Net(), data(), epochs=1, ema=0.9, **PLAIN))


def test_weights_that_change_their_shapes_on_the_way_are_refused() -> None:
    def cut(graph: Any, share: float) -> None:
        if share > 0.45:
            graph.linear.weight = nn.Parameter(graph.linear.weight[:, :8].clone())
            graph.linear.extra = nn.Parameter(torch.ones(1))

    with pytest.raises(PenjingError, match=r"changed.*leave ema=… out"):
        recover(Net(), data(), epochs=1, ema=0.9, callbacks=[cut], **PLAIN)


@pytest.mark.parametrize("ema", [0, 1, 1.5, "0.9"])
def test_a_share_that_is_none_is_refused(ema: Any) -> None:
    with pytest.raises(PenjingError, match="ema="):
        recover(Net(), data(Batches()), epochs=1, ema=ema, **PLAIN)


def test_an_average_of_something_else_is_refused() -> None:
    with pytest.raises(PenjingError, match="no average"):
        Average(0.9).load_state_dict({"run": 1})
