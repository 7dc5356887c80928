import pytest
import torch
import torch.nn.functional as F
from surgery_networks import networks
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from penjing import zoo
from penjing.graph import capture


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.query = nn.Parameter(torch.randn(16, 16))

    def forward(self, x):
        y = self.layer(self.embed(x))
        return (y @ self.query) @ y.transpose(1, 2)


def counted(model: nn.Module, x: torch.Tensor) -> float:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # The fused attention of the CPU is unknown to the counter.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() / 2


IMAGES = [
    "option A",
    "inverted residual",
    "depthwise with multiplier",
    "grouped",
    "dense",
    "squeeze and excite, linear",
]
IMAGES += ["channel shuffle", "U-Net", "pixel shuffle", "split"]


@pytest.mark.parametrize("name", IMAGES)
def test_macs_of_small_networks_are_those_of_an_independent_counter(name):
    model = networks()[name]
    assert capture(model, torch.randn(2, 3, 8, 8)).cost().macs == counted(model, torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize("name", ["lenet300", "lenet5", "resnet20", "squeezenet"])
def test_macs_of_the_zoo_are_those_of_an_independent_counter(name):
    model = zoo.build(name)
    x = zoo.example_input(name)[:1]
    assert capture(model, x).cost().macs == counted(model, x)


def test_macs_of_attention_are_those_of_an_independent_counter():
    model = Attention()
    assert capture(model, torch.randn(2, 5, 6)).cost().macs == counted(model, torch.randn(1, 5, 6))


def test_macs_of_an_lstm_count_every_gate_at_every_step():
    model = nn.LSTM(6, 10, num_layers=2, batch_first=True, bidirectional=True)
    steps, first, second = 7, 4 * 10 * (6 + 10), 4 * 10 * (20 + 10)
    assert capture(model, torch.randn(2, steps, 6)).cost().macs == steps * 2 * (first + second)


def test_macs_are_those_of_one_sample_where_the_batch_is_the_second_axis():
    model = nn.Linear(6, 4)
    assert capture(model, torch.randn(8, 5, 6)).cost().macs == 5 * 6 * 4


def test_peak_memory_of_a_chain_is_its_widest_pair():
    model = nn.Sequential(nn.Linear(10, 100), nn.ReLU(), nn.Linear(100, 50), nn.Flatten(), nn.Linear(50, 1))
    # The rectifier needs its 100 inputs and its 100 outputs at once; flatten is a view and costs nothing.
    assert capture(model, torch.randn(2, 10)).cost().peak_activation_bytes == 4 * 200


def test_peak_memory_of_a_residual_holds_the_shortcut_until_it_is_added():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(10, 10), nn.Linear(10, 10)

        def forward(self, x):
            return self.two(F.relu(self.one(x))) + x

    assert capture(Residual(), torch.randn(2, 10)).cost().peak_activation_bytes == 4 * 30


def test_rows_add_up_and_name_the_users_modules():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    cost = capture(model, torch.randn(2, 3, 8, 8)).cost()
    assert [(row.module, row.op) for row in cost.rows] == [
        ("0", "conv2d"),
        ("1", "batch_norm"),
        ("2", "relu"),
        ("3", "flatten"),
        ("4", "linear"),
    ]
    assert [row.macs for row in cost.rows] == [36 * 27 * 4, 0, 0, 0, 288]
    assert [row.params for row in cost.rows] == [112, 8, 0, 0, 290]
    assert cost.params == 410 and cost.macs == sum(row.macs for row in cost.rows)
    assert cost.rows[0].output_shape == (1, 4, 6, 6) and cost.rows[0].activation_bytes == 4 * 144
    assert cost.rows[1].weight_bytes == 4 * 16
    assert cost.weight_bytes == 4 * (410 + 8) + 8  # running statistics, and the count of batches


def test_bytes_follow_the_dtype():
    graph = capture(nn.Linear(3, 4), torch.randn(2, 3))
    assert graph.double().refresh().cost().weight_bytes == 8 * 16


class FixedBatch(nn.Module):
    """Reshapes to the batch of its example, which no other batch survives."""

    def __init__(self, model, batch):
        super().__init__()
        self.model, self.batch = model, batch

    def forward(self, x):
        return self.model(x).reshape(self.batch, 5, 16)


def test_a_fixed_batch_costs_what_one_sample_costs():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3))
    free = capture(net, torch.randn(4, 3, 8, 8)).cost()
    graph = capture(FixedBatch(net, 4), torch.randn(4, 3, 8, 8))
    fixed = graph.cost()
    assert graph.batch == 4 and (fixed.macs, fixed.params) == (free.macs, free.params)
    assert fixed.peak_activation_bytes == free.peak_activation_bytes and fixed.weight_bytes == free.weight_bytes
    assert [row.activation_bytes for row in fixed.rows][: len(free.rows)] == [row.activation_bytes for row in free.rows]


class Einsum(nn.Module):
    def __init__(self, equation, *shape):
        super().__init__()
        self.equation, self.weight = equation, nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return torch.einsum(self.equation, x, self.weight)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Einsum("...i,io->...o", 6, 7), (1, 4, 5, 6)),
        (Einsum("b...i,...io->b...o", 5, 6, 7), (1, 4, 5, 6)),
        (Einsum("bi...,io->bo...", 6, 7), (1, 6, 2, 3)),
        (nn.Conv1d(3, 4, 3, padding="same"), (1, 3, 9)),
        (nn.Conv2d(3, 4, 3, padding="same"), (1, 3, 9, 8)),
        (nn.Conv3d(3, 4, 3, padding="same"), (1, 3, 9, 8, 7)),
        (nn.Conv3d(3, 4, 3), (1, 3, 9, 8, 7)),
    ],
    ids=str,
)
def test_macs_of_single_ops_are_those_of_an_independent_counter(model, shape):
    x = torch.randn(shape)
    assert capture(model, x).cost().macs == counted(model, x) > 0
