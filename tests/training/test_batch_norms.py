"""Running statistics of batch norms, computed anew."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from training_fakes import Batches, Net, data, same_weights

from made_time import Time
from penjing.graph import capture
from penjing.training import ending, recover
from penjing.training.batch_norms import reestimate
from penjing.training.settings import Variant

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.1}


class Twice(nn.Module):
    """A norm that is called twice, one that is called once, and dropout between them."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.shared, self.last, self.drop = nn.BatchNorm2d(6), nn.BatchNorm1d(6), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.shared(self.first(x)))
        x = torch.relu(self.shared(self.second(x) + 1))
        return self.last(self.drop(x.mean((2, 3))))


def images() -> list[Tensor]:
    return [x for x, _ in Batches()]


def network(captured: bool, dropout: float = 0.3) -> nn.Module:
    net = Twice(dropout).eval()
    return capture(net, torch.randn(2, 3, 8, 8)) if captured else net


@pytest.mark.parametrize("captured", [True, False], ids=["graph", "module"])
def test_statistics_are_those_that_pytorch_computes_without_dropout(captured: bool) -> None:
    expected, net = Twice(0.0), network(captured)
    update_bn([(x,) for x in images()], expected)
    assert reestimate(net, [(x,) for x in images()]) == 160
    found, wanted = net.state_dict(), expected.state_dict()
    names = [name for name in wanted if "running" in name]
    assert len(names) == 4
    for name in names:
        torch.testing.assert_close(found[name], wanted[name], msg=name)


@pytest.mark.parametrize("captured", [True, False], ids=["graph", "module"])
def test_everything_else_stays_as_it_was(captured: bool) -> None:
    net = network(captured)
    before = copy.deepcopy(net)
    reestimate(net, [(x,) for x in images()])
    own, other = net.state_dict(), before.state_dict()
    assert [name for name in own if not torch.equal(own[name], other[name])] == [
        name for name in own if "running" in name
    ]
    assert not net.training
    same = {name: tensor for name, tensor in other.items() if "running" in name}
    net.load_state_dict({**own, **same})
    x = images()[0]
    assert torch.equal(net(x), before(x))
    net.train(), before.train()
    torch.manual_seed(0)
    one = net(x)
    torch.manual_seed(0)
    assert torch.equal(one, before(x)) and same_weights(net, before), "with the momentum of before"


def test_a_batch_counts_by_its_samples_and_a_single_sample_not_at_all() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2))
    large, small, single = torch.randn(6, 2), torch.randn(2, 2) + 3, torch.full((1, 2), 1e6)
    assert reestimate(net, [(large,), (single,), (small,)]) == 8
    torch.testing.assert_close(net[0].running_mean, (6 * large.mean(0) + 2 * small.mean(0)) / 8)
    torch.testing.assert_close(net[0].running_var, (6 * large.var(0) + 2 * small.var(0)) / 8)


def test_a_norm_that_is_never_called_and_a_pass_without_batches_keep_their_statistics() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2))
    net.idle = nn.BatchNorm1d(2)
    net.forward = lambda x: net[0](x)
    net.idle.running_mean += 5
    assert reestimate(net, [(torch.randn(4, 2),)]) == 4
    assert (net.idle.running_mean == 5).all() and (net.idle.running_var == 1).all()
    before = copy.deepcopy(net)
    assert reestimate(net, [(torch.randn(4, 2),)], stop=lambda: True) == 0
    assert same_weights(net, before)


def test_a_norm_has_the_mean_of_those_batches_in_which_it_is_called() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.always, self.sometimes = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.sometimes(x) if float(x.mean()) > 0 else self.always(x)

    net, high, low = Sometimes(), torch.randn(4, 2) + 9, torch.randn(6, 2) - 9
    assert reestimate(net, [(low,), (high,), (low,)]) == 16
    torch.testing.assert_close(net.sometimes.running_mean, high.mean(0))
    torch.testing.assert_close(net.always.running_var, low.var(0))


def test_a_training_ends_with_statistics_of_its_data_under_the_final_weights() -> None:
    said: list[str] = []
    net = recover(Net(), data(), epochs=1, reestimate_norms=True, log=said.append, **PLAIN)
    kept = recover(Net(), data(), epochs=1, **PLAIN)
    assert torch.equal(net.conv.weight, kept.conv.weight)
    expected = copy.deepcopy(kept)
    expected.drop.p = 0.0
    loader = Batches()
    loader.set_epoch(1)  # the epoch behind the last
    update_bn(loader, expected)
    torch.testing.assert_close(net.bn.running_mean, expected.bn.running_mean)
    torch.testing.assert_close(net.bn.running_var, expected.bn.running_var)
    assert "160 training samples" in said[-1]


@pytest.mark.parametrize("choice", [{"ema": 0.9}, {"augment": "erasing"}], ids=["averaged", "augmented"])
def test_other_weights_and_other_images_get_statistics_anew_unless_told_otherwise(choice: dict[str, Any]) -> None:
    auto, told, kept = (
        recover(Net(), data(), epochs=1, **choice, **PLAIN, **more)
        for more in ({}, {"reestimate_norms": True}, {"reestimate_norms": False})
    )
    assert same_weights(auto, told) and torch.equal(auto.conv.weight, kept.conv.weight)
    assert not torch.equal(auto.bn.running_var, kept.bn.running_var)


def test_no_more_samples_are_read_than_statistics_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "SAMPLES", 40)
    said: list[str] = []
    recover(Net(), data(), epochs=1, reestimate_norms=True, log=said.append, **PLAIN)
    assert "48 training samples" in said[-1], "three batches of 16"


def test_a_finished_run_isn_t_finished_again(tmp_path: Path) -> None:
    said: list[str] = []
    how = {"epochs": 1, "reestimate_norms": True, "checkpoint": tmp_path / "run.pt", "log": said.append, **PLAIN}
    first = recover(Net(), data(), **how)
    del said[:]
    assert same_weights(recover(Net(), data(), **how), first)
    assert len(said) == 1 and "Going on" in said[0]


def test_at_the_deadline_statistics_stay_and_the_run_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time(100.0)
    for module in ("run", "beginning", "deadline", "speed"):
        monkeypatch.setattr(f"penjing.training.{module}.time", clock)
    monkeypatch.setattr("penjing.training.beginning.step_seconds", lambda net, objective, *_: {Variant(): 0.01})
    slow: Any = Net()
    forward = slow.forward
    slow.forward = lambda x: (clock.sleep(0.3), forward(x))[1]
    said: list[str] = []
    how = {"epochs": 2, "ema": 0.5, "checkpoint": tmp_path / "run.pt", "log": said.append, **PLAIN}
    recover(slow, data(), deadline=clock.now + 1, **how)
    assert "Batch norms keep the statistics of the training." in said and "stopped early" in said[-1]
    del said[:]
    recover(slow, data(), **how)  # the graph holds the average, and the checkpoint the weights of the last step
    assert "Going on" in said[0] and "160 training samples" in said[-1]
