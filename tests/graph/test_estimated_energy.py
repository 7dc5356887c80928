"""The energy of networks, against sums worked out by hand from Horowitz's constants."""

import pytest
import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the ops
from torch.nn import functional as F

from penjing.graph import capture

ops = torch.ops.quantized_decomposed
DRAM, CACHE = 1300 / 8, 100 / 8  # picojoules per byte


def rounded(x, dtype):
    grid = (0.02, 0, torch.iinfo(dtype).min, torch.iinfo(dtype).max, dtype)
    return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *grid), *grid)


class Linear(nn.Module):
    """A linear layer of which the input, the weight, or neither is rounded."""

    def __init__(self, inputs=None, weights=None):
        super().__init__()
        self.linear = nn.Linear(40, 10, bias=False)
        self.inputs, self.weights = inputs, weights

    def forward(self, x):
        weight = self.linear.weight
        x = x if self.inputs is None else rounded(x, self.inputs)
        return F.linear(x, weight if self.weights is None else rounded(weight, self.weights))


def picojoules(model, dtype=torch.float32, batch=1):
    return 1e9 * capture(model.to(dtype).eval(), torch.randn(2, 40, dtype=dtype)).cost().energy_mj(batch)


def test_a_layer_multiplies_in_floats_and_reads_its_weights_from_memory():
    assert picojoules(Linear()) == pytest.approx(400 * (3.7 + 0.9) + 4 * 50 * CACHE + 4 * 400 * DRAM)


def test_half_floats_need_less_for_everything():
    assert picojoules(Linear(), torch.float16) == pytest.approx(400 * (1.1 + 0.4) + 2 * 50 * CACHE + 2 * 400 * DRAM)


def test_integers_are_multiplied_in_8_bits_and_summed_in_32():
    found = picojoules(Linear(torch.int8, torch.int8))
    assert found == pytest.approx(400 * (0.2 + 0.1) + (40 + 4 * 10) * CACHE + 400 * DRAM)


def test_integer_weights_alone_are_read_as_such_and_multiplied_as_floats():
    found = picojoules(Linear(None, torch.int8))
    assert found == pytest.approx(400 * (3.7 + 0.9) + 4 * 50 * CACHE + 400 * DRAM)


def test_a_batch_reads_the_weights_once():
    one, eight = picojoules(Linear()), picojoules(Linear(), batch=8)
    assert eight == pytest.approx(8 * one - 7 * 4 * 400 * DRAM)


def test_what_runtimes_compute_on_the_way_needs_no_energy_of_its_own():
    class Clipped(Linear):
        def forward(self, x):
            return F.relu(super().forward(x))

    assert picojoules(Clipped()) == picojoules(Linear())
