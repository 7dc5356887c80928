"""Every criterion × granularity × schedule on one network: what makes sense runs, and what doesn't says so.

The product of all three is walked along its faces: each pair, with the third fixed.
"""

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.pruning import criteria, granularities, schedules
from penjing.pruning.granularities._registry import find

AMOUNT = 0.5
TYPED = [entry.example or name for name, entry in granularities.items()]
CARRIES = {name for name in TYPED if ":" in name and not name.startswith("block")}  # its own amount
SHORT = {"iterative": "iterative:1", "rewind": "rewind:1"}
PART = ["layer1.0*", "layer1.1*"]  # two residual blocks: it is the choices that are tried here, not networks


class TwoBlocks(nn.Module):
    """The first two residual blocks of a ResNet for CIFAR, between its stem and a classifier."""

    def __init__(self):
        super().__init__()
        whole = pj.zoo.resnet20()
        self.conv1, self.bn1, self.layer1 = whole.conv1, whole.bn1, whole.layer1[:2]
        self.linear = nn.Linear(16, 10)

    def forward(self, x):
        x = self.layer1(torch.relu(self.bn1(self.conv1(x))))
        return self.linear(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(6)
    model = TwoBlocks()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: no two channels alike
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return pj.capture(model.eval(), torch.randn(2, 3, 16, 16))


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(7)
    batches = [
        (torch.randn(2, 3, 16, 16, generator=generator), torch.randint(10, (2,), generator=generator)) for _ in range(2)
    ]
    return pj.Data(batches, batches, batches, pj.tasks.Classification(10))


def prune(network, images, criterion="l2", granularity="filter", schedule="one_shot", **options):
    amount = None if granularity in CARRIES else AMOUNT
    if schedule != "one_shot":
        options |= {"epochs": 1, "lr": 0.01, "progress": False, "drop": "100%" if "iterative" in schedule else None}
    return pj.prune(network, amount, criterion=criterion, granularity=granularity, schedule=SHORT.get(schedule, schedule),
                    data=images, include=PART, batches=1, **options)  # fmt: skip


def check(small, network):
    """It runs, it trains, and it is smaller: in numbers, or in zeros that masks hold."""
    x = torch.randn(3, 3, 16, 16)
    assert small(x).shape == (3, 10) and bool(small(x).isfinite().all())
    zeros = sum(int((~mask).sum()) for mask in small.masks.values())
    assert all(bool((small.tensor(name)[~mask] == 0).all()) for name, mask in small.masks.items())
    assert small.plan and small.cost().params - zeros < network.cost().params


@pytest.mark.parametrize("granularity", TYPED)
@pytest.mark.parametrize("criterion", criteria)
def test_every_criterion_prunes_at_every_granularity_that_it_can_tell_apart(network, images, criterion, granularity):
    removes = find(granularity).removes
    able = {"channels"} if criteria[criterion].level == "unit" else {"channels", "branches", "weights"}
    able |= {"branches"} if criteria[criterion].branches else set()
    if granularity == "head":
        with pytest.raises(PenjingError, match="No head of attention can be removed"):
            prune(network, images, criterion, granularity)
    elif removes not in able:
        with pytest.raises(PenjingError, match=f"'{criterion}' scores single channels"):
            prune(network, images, criterion, granularity)
    else:
        check(prune(network, images, criterion, granularity), network)


@pytest.mark.parametrize("granularity", [name for name in TYPED if name != "head"])
@pytest.mark.parametrize("schedule", schedules)
def test_every_schedule_prunes_at_every_granularity_that_it_goes_with(network, images, schedule, granularity):
    channels, whole = granularity == "filter", granularity.startswith(("rectangle", "patterns"))
    if schedule == "dense_sparse_dense" and not channels and granularity != "layer":
        dense = prune(network, images, "l2", granularity, schedule)
        assert dense.masks == {} and dense.cost().params == network.cost().params
    elif (
        (granularity == "layer" and schedule != "one_shot")
        or (schedule == "lasso_bn" and not channels)
        or (schedule == "dense_sparse_dense" and channels)
        or (whole and schedule in ("iterative", "cubic", "splicing", "rewind"))
    ):
        with pytest.raises(
            PenjingError, match=f"schedule='{schedule}.*' does not go with .*Schedules that do: .*one_shot"
        ):
            prune(network, images, "l2", granularity, schedule)
    else:
        check(prune(network, images, "l2", granularity, schedule), network)


@pytest.mark.parametrize("criterion", criteria)
@pytest.mark.parametrize("schedule", [name for name in schedules if name not in ("one_shot", "dense_sparse_dense")])
def test_every_schedule_goes_with_every_criterion(network, images, schedule, criterion):
    small = prune(network, images, criterion, "filter", schedule)
    check(small, network)
    assert small.tensor("layer1.1.conv1.weight").shape[0] == 8 and small.masks == {}
