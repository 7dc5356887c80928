"""What ops move through memory, against sizes worked out by hand."""

import pytest
import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the ops
from torch.nn import functional as F

import penjing as pj
from penjing.graph import capture

ops = torch.ops.quantized_decomposed


def rounded(x, low=0, high=255, dtype=torch.uint8):
    grid = (0.02, 0, low, high, dtype)
    return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *grid), *grid)


def of(model, *inputs):
    """The traffic of each op that moves anything, by the op's name."""
    rows = capture(model.eval(), inputs).cost().rows
    return {row.op: row.traffic for row in rows if row.traffic.bytes(False)}


def test_a_convolution_reads_its_input_its_weight_and_its_bias_and_writes_its_output():
    (found,) = of(nn.Conv2d(3, 8, 3), torch.randn(2, 3, 10, 10)).values()
    assert found.values == 4 * (3 * 100 + 8 * 64) and found.weights == 4 * (8 * 27 + 8)
    assert found.numbers == "float32" and found.bytes(True) == found.bytes(False)


def test_values_count_for_each_sample_and_weights_once():
    (found,) = of(nn.Linear(4, 3), torch.randn(2, 4)).values()
    assert found.bytes(False, 8) == 8 * 4 * (4 + 3) + 4 * (12 + 3)


class Rounded(nn.Module):
    def __init__(self, low=-127, high=127):
        super().__init__()
        self.ends = low, high
        self.conv = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8 * 25, 2)

    def forward(self, x):
        weight = rounded(self.conv.weight, *self.ends, torch.int8)
        x = rounded(F.relu(F.conv2d(rounded(x), weight, self.conv.bias)))
        return F.linear(x.flatten(1), rounded(self.head.weight, *self.ends, torch.int8), self.head.bias)


def test_what_is_rounded_moves_as_bytes_where_a_runtime_computes_in_integers():
    found = of(Rounded(), torch.randn(2, 4, 5, 5))
    assert found["conv2d"].bytes(True) == 4 * 25 + 8 * 25 + 8 * 4 + 4 * 8
    assert found["conv2d"].bytes(False) == 4 * (4 * 25 + 8 * 25) + 8 * 4 + 4 * 8, (
        "weights are stored as integers anyway"
    )
    assert found["linear"].bytes(True) == 8 * 25 + 4 * 2 + 2 * 8 * 25 + 4 * 2, (
        "the float output takes four bytes an entry"
    )
    assert found["conv2d"].numbers == found["linear"].numbers == "int8"
    assert "relu" not in found, "it is computed within the convolution, whose rounded output is all that is written"


def test_weights_of_four_bits_lie_two_in_a_byte():
    eight, four = (of(Rounded(*ends), torch.randn(2, 4, 5, 5))["linear"] for ends in ((-127, 127), (-8, 7)))
    assert eight.weights - four.weights == 8 * 25


def test_codes_and_their_table_are_what_is_read_of_a_weight_of_shared_values():
    graph = pj.capture(nn.Linear(64, 32, bias=False).eval(), torch.randn(2, 64))
    small = pj.quantize(graph, weights="codebook:16", activations=None)
    (found,) = (row.traffic for row in small.cost().rows if row.macs)
    assert found.weights == pytest.approx(64 * 32 + 4 * 16, rel=0.05) and found.numbers == "float32"


class Views(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2).reshape(-1, 6)


def test_views_move_nothing():
    assert of(Views(), torch.randn(2, 3, 4)) == {}


def test_an_embedding_reads_the_rows_that_it_is_asked_for():
    (found,) = of(nn.Embedding(1000, 8), torch.zeros(2, 5, dtype=torch.int64)).values()
    assert found.bytes(False) == 5 * 8 + 2 * 4 * 5 * 8, "five indices, and their rows read and written"


class FixedBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x).reshape(5, 3)


@pytest.mark.filterwarnings("ignore:.*batches of 5 alone")
def test_where_the_batch_is_fixed_the_values_are_one_samples_share():
    assert of(FixedBatch(), torch.randn(5, 4))["linear"].values == 4 * (4 + 3)


@pytest.mark.parametrize(
    ("dtype", "numbers"), [(torch.float32, "float32"), (torch.float16, "float16"), (torch.bfloat16, "float16")]
)
def test_floats_compute_in_their_own_width(dtype, numbers):
    (found,) = of(nn.Linear(4, 3).to(dtype), torch.randn(2, 4, dtype=dtype)).values()
    assert found.numbers == numbers and found.weights == dtype.itemsize * 15
