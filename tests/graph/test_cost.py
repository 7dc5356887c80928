import pytest
import torch
import torch.nn.functional as F
from surgery_networks import networks
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from networks.kinds import kinds
from penjing import zoo
from penjing.graph import capture
from penjing.graph.cost import uncounted


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


class With(nn.Module):
    """One op between an input and a parameter."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(shape) + 2 * torch.eye(shape[-2], shape[-1]))

    def forward(self, x):
        return self.function(x, self.weight)


@pytest.mark.parametrize(
    ("function", "weight", "x"),
    [
        (lambda x, w: torch.inner(x, w), (4, 6), (1, 3, 6)),
        (lambda x, w: torch.tensordot(x, w, dims=([2], [0])), (6, 4), (1, 3, 6)),
        (lambda x, w: torch.addmm(w[0], x, w), (6, 6), (1, 6)),
        (lambda x, w: torch.baddbmm(x, x, w.expand(x.shape[0], 6, 6)), (6, 6), (1, 6, 6)),
        (lambda x, w: F.conv_transpose1d(x, w[:, None].expand(6, 4, 6)), (6, 6), (1, 6, 9)),
        (lambda x, w: F.scaled_dot_product_attention(x, x @ w, x), (6, 6), (1, 2, 5, 6)),
    ],
    ids=["inner", "tensordot", "addmm", "baddbmm", "conv_transpose1d", "attention"],
)
def test_macs_of_products_are_those_of_an_independent_counter(function, weight, x):
    model, x = With(function, *weight), torch.randn(x)
    assert capture(model, x).cost().macs == counted(model, x) > 0


@pytest.mark.parametrize(
    ("function", "weight", "x", "macs"),
    [
        (lambda x, w: torch.mv(x.flatten(0, 1), w[0]), (1, 6), (2, 3, 6), 3 * 6),
        (lambda x, w: torch.addmv(x[:, 0], x, w[0]), (1, 6), (2, 6), 6),
        (lambda x, w: torch.outer(x.flatten(), w[0]), (1, 5), (2, 6), 6 * 5),
        (lambda x, w: F.bilinear(x, x, w), (4, 6, 6), (2, 6), 4 * 6 * 6),
        (lambda x, w: torch.cdist(x, w), (4, 6), (2, 3, 6), 3 * 4 * 6),
        (lambda x, w: torch.addbmm(w, x.transpose(1, 2), x) * x[:, :1], (6, 6), (2, 3, 6), 6 * 3 * 6),
    ],
    ids=["mv", "addmv", "outer", "bilinear", "cdist", "addbmm"],
)
def test_macs_of_products_that_the_counter_does_not_know_are_those_of_a_count_by_hand(function, weight, x, macs):
    assert capture(With(function, *weight), torch.randn(x)).cost().macs == macs


@torch.library.custom_op("penjing_test::mixed", mutates_args=())
def mixed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x @ weight


@mixed.register_fake
def _(x, weight):
    return x @ weight


@pytest.mark.parametrize(
    ("function", "op"),
    [
        (lambda x, w: torch.fft.rfft(x @ w, dim=-1).abs(), "fft_rfft"),
        (lambda x, w: torch.linalg.solve(w, x.transpose(0, 1)).transpose(0, 1), "linalg_solve"),
        (lambda x, w: mixed(x, w), "mixed"),
    ],
    ids=["Fourier transforms", "equations", "an op of the user's own"],
)
def test_an_op_of_which_nothing_is_known_is_not_taken_for_free(function, op):
    cost = capture(With(function, 6, 6), torch.randn(2, 6)).cost()
    assert [(row.op, row.macs) for row in cost.uncounted] == [(op, 0)]
    assert op in uncounted(cost.uncounted)


def test_moves_norms_and_entries_one_by_one_count_as_free():
    def touch(x, w):
        y = x.index_put((torch.tensor([0]),), w[0]).scatter(1, x.argmax(1, keepdim=True), 0.0)
        return F.layer_norm(F.cosine_similarity(y.cummax(1)[0][:, None], w, dim=-1), (6,))

    cost = capture(With(touch, 6, 6), torch.randn(2, 6)).cost()
    assert cost.macs == 0 and cost.uncounted == ()


@pytest.mark.parametrize("name", ["ViT", "Llama"])
def test_no_op_of_common_networks_is_left_out_of_their_macs(name):
    model, x = kinds()[name]
    assert capture(model.eval(), x).cost().uncounted == ()


@pytest.mark.parametrize("pick", ["mask", "nonzero", "bincount"])
def test_an_op_whose_sizes_depend_on_values_is_not_taken_for_counted(pick):
    class Picks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            y = self.body(x)
            if pick == "bincount":
                return y * y.new_ones(6).long().bincount(minlength=2).sum()
            return self.head(y[y[:, 0] > 0] if pick == "mask" else y[torch.nonzero(y[:, 0])[:, 0]])

    cost = capture(Picks().eval(), torch.randn(4, 4)).cost()
    assert [row.module for row in cost.uncounted] == ([] if pick == "bincount" else ["head"])
    assert {row.module: row.macs for row in cost.rows if row.macs}["body"] == 24


def test_what_is_used_again_after_its_view_lives_until_then():
    class Late(nn.Module):
        def forward(self, x):
            y = x.exp()
            z = y.flatten(1).sin().cos()
            return z.unflatten(1, (4, 8)) + y

    cost = capture(Late(), torch.randn(2, 4, 8)).cost()
    # sin and cos work beside what exp gave, which is added at the end; a view takes nothing.
    assert cost.peak_activation_bytes == 3 * 4 * 8 * 4


def test_a_weight_that_two_layers_read_is_counted_at_the_first():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8, bias=False)

        def forward(self, x):
            return self.layer(self.layer(x).relu())

    cost = capture(Twice(), torch.randn(2, 8)).cost()
    assert [(row.params, row.weight_bytes) for row in cost.rows if row.op == "linear"] == [(64, 256), (0, 0)]


def test_an_axis_of_size_one_in_a_sum_of_products_is_as_long_as_the_others():
    class Steps(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(1, 8, 3))

        def forward(self, x):
            return torch.einsum("bti,tij->btj", x, self.weight)

    assert capture(Steps(), torch.randn(2, 5, 8)).cost().macs == 5 * 8 * 3
