"""Layer-wise learning rates."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_fakes import Batches, Net, data

import penjing as pj
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.training import TrainingSettings, recover
from penjing.training.layers import rate_factors
from penjing.training.optimizers import make_optimizer, set_rate

PLAIN: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "lr": 0.1}


def by_name(network: nn.Module, decay: float = 0.5) -> dict[str, float]:
    factors = rate_factors(network, decay)
    return {name: factors[parameter] for name, parameter in network.named_parameters() if parameter in factors}


@pytest.mark.parametrize("captured", [True, False], ids=["graph", "module"])
def test_each_block_has_one_rate_that_falls_towards_the_input(captured: bool) -> None:
    net = pj.zoo.resnet20().eval()
    found = by_name(capture(net, torch.randn(2, 3, 32, 32)) if captured else net)
    assert found.keys() == dict(net.named_parameters()).keys()
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    head = list(net.named_parameters())[-1][0].rpartition(".")[0]
    for name, factor in found.items():
        block = next((place for place, block in enumerate(blocks, 1) if name.startswith(f"{block}.")), 0)
        assert factor == 0.5 ** (10 - (10 if name.startswith(f"{head}.") else block)), name


class Backwards(nn.Module):
    """Layers that are made in another order than they run; the embedding is also the head, and one weight is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.second, self.first = nn.Linear(3, 3), nn.Linear(3, 3)
        self.norm, self.frozen, self.head = nn.LayerNorm(3), nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.head.weight = self.first.weight
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x)) * self.scale)
        return self.head(self.frozen(self.norm(x)))


def test_layers_of_a_graph_follow_one_another_as_they_run() -> None:
    found = by_name(capture(Backwards(), torch.randn(2, 3)))
    first, second = dict.fromkeys(["first.weight", "first.bias", "scale"], 0.5), ["second.weight", "second.bias"]
    assert found == {**first, **dict.fromkeys(second, 1.0), "norm.weight": 1.0, "norm.bias": 1.0}


class Nested(nn.Module):
    """A stage that holds a block and a layer of its own, a layer that shares its weight, and a head."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        self.stages = nn.ModuleList([nn.ModuleDict({"blocks": nn.Sequential(block), "merge": nn.Linear(3, 3)})])
        self.again, self.head = nn.Linear(3, 3, bias=False), nn.Linear(3, 3)
        self.again.weight = block[0].weight

    def forward(self, x: Tensor) -> Tensor:
        stage: Any = self.stages[0]
        return self.head(self.again(stage["merge"](stage["blocks"](x))))


@pytest.mark.parametrize("captured", [True, False], ids=["graph", "module"])
def test_a_parameter_counts_in_its_innermost_block_and_a_shared_one_in_its_first_layer(captured: bool) -> None:
    net = Nested().eval()
    found = by_name(capture(net, torch.randn(2, 3)) if captured else net)
    block = [f"stages.0.blocks.0.{layer}.{kind}" for layer in (0, 1) for kind in ("weight", "bias")]
    merge = dict.fromkeys(["stages.0.merge.weight", "stages.0.merge.bias"], 0.5)
    assert found == {**dict.fromkeys(block, 0.25), **merge, "head.weight": 1.0, "head.bias": 1.0}


def test_the_steps_of_a_layer_are_its_part_of_the_rate() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) @ torch.ones(3, 4) + 0 * (self.first.weight.sum() + self.last.weight.sum())

    def penalty(net: Any, share: float) -> Tensor:
        return net.first.weight.sum() + net.last.weight.sum()  # a gradient of ones

    net, told = Idle(), list[Any]()
    before = [net.first.weight.detach().clone(), net.last.weight.detach().clone()]
    recover(net, data(Batches()), epochs=1, layer_decay=0.25, momentum=0.0, weight_decay=0.0, clip_norm=None,
            penalty=penalty, report=told.append, **PLAIN)  # fmt: skip
    moved = [old - new.weight.detach() for old, new in zip(before, (net.first, net.last), strict=True)]
    assert float(moved[1].mean()) == pytest.approx(0.1 * 5, rel=0.05), "the mean of warm-up and cosine is about a half"
    torch.testing.assert_close(moved[0], 0.25 * moved[1], atol=1e-6, rtol=1e-4)
    recover(Idle(), data(Batches()), epochs=1, report=told.append, **PLAIN)
    assert told[0]["lr"] == told[1]["lr"], "reports tell the full rate"


def test_what_is_trained_beside_the_student_has_the_full_rate() -> None:
    settings = TrainingSettings(lr=0.1, layer_decay=0.5)
    beside = nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer(Net(), settings, 0.1, [beside])
    set_rate(optimizer, 0.2)
    rates = {tuple(p.shape): group["lr"] for group in optimizer.param_groups for p in group["params"] if p.ndim > 1}
    assert rates == {(4, 8): 0.2, (8, 3, 3, 3): 0.1, (2, 2): 0.2}


@pytest.mark.parametrize("decay", [0, 1.1, -0.5, None])
def test_a_factor_that_is_none_is_refused(decay: Any) -> None:
    with pytest.raises(PenjingError, match="layer_decay="):
        recover(nn.Linear(1, 1), data(Batches()), epochs=1, layer_decay=decay, **PLAIN)
