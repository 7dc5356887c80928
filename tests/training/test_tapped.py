"""Values that a network gives beside its outputs."""

import pytest
import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.training.tapped import Tapped


def test_a_value_is_what_its_module_returned_whatever_is_written_into_it_later() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)), torch.randn(8, 4)
    outputs, (tap,) = Tapped(net, ["0"])(x)
    expected = nn.functional.linear(x, net[0].weight, net[0].bias)
    assert torch.equal(tap, expected) and torch.equal(outputs, expected.clamp(min=0)) and (tap < 0).any()


class Sometimes(nn.Module):
    """Calls its layer for positive inputs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


def test_a_module_that_is_not_called_gives_no_value_of_an_earlier_batch() -> None:
    tapped = Tapped(Sometimes(), ["layer"])
    assert len(tapped(torch.ones(1, 2))[1]) == 1
    with pytest.raises(PenjingError, match=r"'layer' gives no tensor .*it is not called"):
        tapped(-torch.ones(1, 2))


def test_a_closed_network_keeps_no_hooks() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    tapped = Tapped(net, ["0"])
    assert net[0]._forward_hooks
    tapped.close()
    assert not net[0]._forward_hooks
