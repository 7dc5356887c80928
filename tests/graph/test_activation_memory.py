"""What a graph's values take in memory, counted by hand."""

import pytest
import torch
from torch import nn

from penjing.graph import capture
from penjing.quantization import quantize


class Wide(nn.Module):
    """Two convolutions with 16 channels between them, on maps of 8×8."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return capture(Wide(), torch.randn(2, 3, 8, 8))


def test_the_largest_tensor_is_an_activation_a_weight_or_an_input():
    assert capture(nn.Linear(4, 300), torch.randn(2, 4)).cost().largest_tensor_bytes == 4 * 300 * 4, "the weight"
    assert capture(nn.Conv2d(1, 2, 1), torch.randn(2, 1, 9, 9)).cost().largest_tensor_bytes == 4 * 2 * 81, "the output"
    assert capture(nn.MaxPool2d(2), torch.randn(2, 1, 8, 8)).cost().largest_tensor_bytes == 4 * 64, "the input"


def test_a_value_that_is_rounded_to_eight_bits_takes_a_byte_an_entry(graph):
    small = quantize(graph, [torch.randn(16, 3, 8, 8)])
    floats, integers = graph.cost(), small.cost()
    assert floats.peak_activation_bytes == 4 * 2 * 16 * 64, "what the rectifier reads and writes"
    # The rectifier is part of the first convolution: the most is what the second reads, in bytes, and what it writes. If this
    # is rounded, it stands there in bytes and, as the output, in floats, when the second's input is gone.
    assert integers.peak_activation_bytes == max(64 * (16 + 4), 64 * (4 + 4 * 4))
    assert floats.largest_tensor_bytes == 4 * 16 * 64 and integers.largest_tensor_bytes == 16 * 64
    assert integers.layers == floats.layers == 2 and integers.macs == floats.macs


def test_only_ops_that_multiply_count_as_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    assert capture(net, torch.randn(2, 3, 8, 8)).cost().layers == 2
