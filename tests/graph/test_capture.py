from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.graph.capture.verify import close


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def test_the_users_own_training_flags_and_buffers_are_as_they_were():
    model = Convolutional().train()
    model.body[1].eval()
    flags = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = capture(model, torch.randn(2, 3, 8, 8))
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not graph.training


def test_a_model_that_counts_its_calls_is_left_as_it_was():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x * 2

    model = Counts()
    graph = capture(model, torch.randn(2, 3))
    assert model.calls == 0
    assert torch.equal(graph(torch.ones(4, 3)), torch.full((4, 3), 2.0))


def test_the_flags_are_restored_when_capture_fails():
    model = Lambda(lambda x: x @ x).train()
    with pytest.raises(PenjingError):
        capture(model, torch.randn(2, 3))
    assert model.training


def test_the_graph_shares_nothing_with_the_model():
    model = Convolutional().eval()
    x = torch.randn(2, 3, 8, 8)
    graph = capture(model, x)
    before = graph(x)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.zero_()
    assert torch.equal(graph(x), before)


def test_an_example_batch_of_one_leaves_the_batch_free():
    model = Convolutional().eval()
    graph = capture(model, torch.randn(1, 3, 8, 8))
    assert graph.batch is None
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.allclose(graph(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [lambda x: x.reshape(4, -1), lambda x: x + torch.arange(4.0).reshape(4, 1), lambda x: F.softmax(x[:4] * x, 0)],
    ids=["view", "constant", "product"],
)
def test_a_model_that_truly_fixes_its_batch_says_so(function):
    model = Lambda(function)
    graph = capture(model, torch.randn(4, 6))
    assert graph.batch == 4
    x = torch.randn(4, 6)
    assert torch.equal(graph(x), model(x))
    with pytest.raises(PenjingError, match=r"\(4, 6\)"):
        graph(torch.randn(3, 6))


class Branches(nn.Module):
    """Computes something else for large batches."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x) if x.shape[0] > 2 else x * 2


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_a_model_that_branches_on_its_batch_is_captured_at_that_batch(batch):
    model, x = Branches(), torch.randn(batch, 3)
    graph = capture(model, x)
    assert graph.batch == batch and torch.allclose(graph(x), model(x))
    with pytest.raises(PenjingError, match="has shape"):
        graph(torch.randn(5, 3))


def test_a_recurrent_state_of_fixed_size_fixes_the_batch():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(3, 5, batch_first=True)
            self.register_buffer("state", torch.zeros(1, 2, 5))

        def forward(self, x):
            return self.cell(x, (self.state, self.state))[0]

    graph = capture(Recurrent(), torch.randn(2, 4, 3))
    assert graph.batch == 2
    assert graph.example_inputs()[0].shape == (2, 4, 3)


def test_a_batch_that_a_single_image_fixes_is_one():
    graph = capture(Lambda(lambda x: x.reshape(1, 6)), torch.randn(1, 2, 3))
    assert graph.batch == 1 and graph(torch.randn(1, 2, 3)).shape == (1, 6)


def test_further_axes_are_free_on_request():
    model = nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 3))
    graph = capture(model, torch.randint(0, 11, (2, 6)), dynamic={"input": (0, 1)})
    tokens = torch.randint(0, 11, (3, 9))
    assert torch.allclose(graph(tokens), model(tokens))


def test_image_sizes_are_free_on_request():
    model = Convolutional().eval()
    graph = capture(model, torch.randn(2, 3, 8, 8), dynamic={"x": (2, 3)})
    x = torch.randn(1, 3, 12, 9)
    assert torch.allclose(graph(x), model(x), atol=1e-6)


def test_an_axis_stays_fixed_unless_asked_for():
    graph = capture(Convolutional(), torch.randn(2, 3, 8, 8))
    with pytest.raises(PenjingError, match=r"has shape \(2, 3, 9, 9\); the model was captured for \(\*, 3, 8, 8\)"):
        graph(torch.randn(2, 3, 9, 9))


def test_dynamic_of_an_unknown_input_or_axis_is_named():
    with pytest.raises(PenjingError, match="'z'; the model's inputs are x"):
        capture(Convolutional(), torch.randn(2, 3, 8, 8), dynamic={"z": (0,)})
    with pytest.raises(PenjingError, match="axis 4"):
        capture(Convolutional(), torch.randn(2, 3, 8, 8), dynamic={"x": (4,)})


def test_an_axis_that_the_model_fixes_cannot_be_asked_free():
    model = Lambda(lambda x: x + torch.ones(6, 4))
    with pytest.raises(PenjingError, match="half and at twice"):
        capture(model, torch.randn(2, 6, 4), dynamic={"args_0": (1,)})
    with pytest.raises(PenjingError, match=r"half and at twice|size 6 of axis 1"):
        capture(nn.Linear(6, 4), torch.randn(2, 6), dynamic={"input": (1,)})


def test_views_work_under_channels_last():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            return y.view(y.size(0), 2, 2, 8, 8).transpose(1, 2).contiguous().view(y.size(0), -1)

    model = Views()
    x = torch.randn(2, 3, 8, 8)
    graph = capture(model, x)
    expected = model(x)
    graph = graph.to(memory_format=torch.channels_last)
    assert torch.allclose(graph(x.to(memory_format=torch.channels_last)), expected, atol=1e-5)


def test_dtype_arithmetic_on_sizes_is_kept_symbolic():
    model = Lambda(lambda x: x.reshape(x.shape[0] * 2, x.shape[1] // 2) / (x.shape[0] + 1))
    graph = capture(model, torch.randn(2, 6))
    x = torch.randn(5, 6)
    assert torch.equal(graph(x), model(x))


class DropPath(nn.Module):
    def forward(self, x):
        if not self.training:
            return x
        keep = torch.rand(x.shape[0], 1) > 0.5
        return x * keep


def test_what_is_lost_in_training_is_named():
    model = nn.Sequential(nn.Linear(3, 3), DropPath())
    graph = capture(model, torch.randn(2, 3))
    assert graph.lost_in_training == ("1: DropPath",)
    assert capture(nn.Linear(3, 3), torch.randn(2, 3)).lost_in_training == ()


def test_module_paths_and_source_lines_stand_on_nodes():
    graph = capture(Convolutional(), torch.randn(2, 3, 8, 8))
    conv = next(n for n in graph.program.graph.nodes if "conv2d" in str(n.target))
    mean = next(n for n in graph.program.graph.nodes if "mean.dim" in str(n.target))
    assert conv.meta["module"] == "body.0" and mean.meta["module"] == ""
    assert "test_capture.py" in mean.meta["source"] and "mean((2, 3))" in mean.meta["source"]


def test_nodes_of_a_no_grad_region_know_their_module_and_line():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            with torch.no_grad():
                x = self.a(x).relu()
            return self.b(x)

    model = Frozen()
    graph = capture(model, torch.randn(2, 3))
    linears = [n for n in graph.program.graph.nodes if "linear" in str(n.target)]
    assert [n.meta["module"] for n in linears] == ["a", "b"]
    relu = next(n for n in graph.program.graph.nodes if "relu" in str(n.target))
    assert "test_capture.py" in relu.meta["source"]
    graph(torch.randn(2, 3)).sum().backward()
    gradients = {name: p.grad for name, p in graph.named_parameters()}
    assert gradients["a.weight"] is None and gradients["b.weight"] is not None


def test_detached_values_stop_gradients_as_in_the_model():
    model = Lambda(lambda x: x + (x.round() - x).detach())
    graph = capture(model, torch.randn(2, 3))
    x = torch.randn(2, 3, requires_grad=True)
    graph(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 3))


# Inputs and outputs of every nesting


class Shop(nn.Module):
    """Takes and returns all kinds of things."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x, pair, scale: float = 1.0, mask=None, *, extra=None):
        y = self.linear(x) * scale + pair[0] - pair[1]["b"]
        if mask is not None:
            y = y * mask
        if extra is not None:
            y = y + extra
        return {"y": y, "parts": [y[:, :1], (y.sum(), None)], "three": 3}


def shop_inputs(batch: int):
    return torch.randn(batch, 3), (torch.randn(batch, 3), {"b": torch.randn(batch, 3)})


def test_several_nested_and_keyword_inputs_and_nested_outputs_work():
    model = Shop()
    graph = capture(model, shop_inputs(2), kwargs={"extra": torch.randn(2, 3), "scale": 2.0})
    args = shop_inputs(5)
    keywords = {"extra": torch.randn(5, 3), "scale": 2.0}
    expected, actual = model(*args, **keywords), graph(*args, **keywords)
    assert set(actual) == {"y", "parts", "three"} and actual["three"] == 3 and actual["parts"][1][1] is None
    assert torch.allclose(actual["y"], expected["y"], atol=1e-6)
    assert torch.allclose(actual["parts"][1][0], expected["parts"][1][0], atol=1e-5)


def test_inputs_given_positionally_and_by_name_are_the_same():
    model = Shop()
    x, pair = shop_inputs(2)
    graph = capture(model, {"x": x, "pair": pair})
    assert torch.allclose(graph(x, pair)["y"], model(x, pair)["y"])
    assert torch.allclose(graph(pair=pair, x=x)["y"], model(x, pair)["y"])
    graph = capture(model, (x, pair))
    assert torch.allclose(graph(x=x, pair=pair)["y"], model(x, pair)["y"])


def test_a_none_or_constant_input_must_stay_what_it_was():
    x, pair = shop_inputs(2)
    graph = capture(Shop(), (x, pair, 2.0, None))
    graph(x, pair, 2.0, None)
    with pytest.raises(PenjingError, match=r"constant 2\.0 where 3\.0"):
        graph(x, pair, 3.0, None)
    with pytest.raises(PenjingError, match="constant None"):
        graph(x, pair, 2.0, torch.ones(2, 3))


def test_models_of_any_number_of_inputs_work():
    model = Lambda(lambda *xs: sum(xs))
    graph = capture(model, (torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 3)))
    xs = [torch.randn(4, 3) for _ in range(3)]
    assert torch.allclose(graph(*xs), model(*xs))


def test_models_of_any_keywords_work():
    model = Lambda(lambda **xs: xs["a"] - xs["b"])
    graph = capture(model, {"b": torch.randn(2, 3), "a": torch.randn(2, 3)})
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.equal(graph(a=a, b=b), a - b)
    assert torch.equal(graph(b=b, a=a), a - b)


def test_dictionaries_in_another_order_are_the_same_input():
    model = Lambda(lambda d: d["a"] - d["b"])
    graph = capture(model, ({"a": torch.randn(2, 3), "b": torch.randn(2, 3)},))
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(graph({"b": b, "a": a}), a - b)


Pair = namedtuple("Pair", "left right")


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


torch.export.register_dataclass(Output)


@pytest.mark.parametrize(
    "wrap",
    [lambda y: Pair(y, y + 1), lambda y: Output(y, y * 2), lambda y: [y, {"z": (y,)}], lambda y: y.sum()],
    ids=["namedtuple", "dataclass", "nested", "scalar"],
)
def test_outputs_come_back_in_the_models_own_containers(wrap):
    model = Lambda(lambda x: wrap(x * 2))
    graph = capture(model, torch.randn(2, 3))
    x = torch.randn(3, 3)
    expected, actual = model(x), graph(x)
    assert type(actual) is type(expected)
    leaves = torch.utils._pytree.tree_leaves
    assert all(torch.equal(a, b) for a, b in zip(leaves(actual), leaves(expected), strict=True))


def test_an_input_that_is_returned_or_unused_is_kept():
    model = Lambda(lambda x, unused: (x, x + 1))
    graph = capture(model, (torch.randn(2, 3), torch.randn(2, 3)))
    x = torch.randn(4, 3)
    same, more = graph(x, torch.randn(4, 3))
    assert torch.equal(same, x) and torch.equal(more, x + 1)


@pytest.fixture(scope="module")
def two_inputs():
    return capture(Lambda2(), (torch.randn(2, 3), torch.randint(0, 5, (2, 4))))


class Lambda2(nn.Module):
    def forward(self, x, tokens):
        return x.sum(1) + tokens.sum(1)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((torch.randn(2, 4), torch.zeros(2, 4).long()), {}, r"Input 'x' has shape \(2, 4\)"),
        ((torch.randn(2, 3, 1), torch.zeros(2, 4).long()), {}, r"Input 'x' has shape \(2, 3, 1\)"),
        ((torch.randn(2, 3), torch.zeros(2, 4)), {}, r"Input 'tokens' has dtype torch.float32"),
        ((torch.zeros(2, 3).long(), torch.zeros(2, 4).long()), {}, r"Input 'x' has dtype torch.int64"),
        ((torch.randn(2, 3),), {}, "Missing input 'tokens'"),
        ((), {"tokens": torch.zeros(2, 4).long()}, "Missing input 'x'"),
        ((torch.randn(2, 3), torch.zeros(2, 4).long(), 3), {}, "3 positional inputs"),
        ((torch.randn(2, 3), torch.zeros(2, 4).long()), {"z": 3}, "(?i)unexpected input 'z'"),
        ((torch.randn(2, 3), torch.zeros(2, 4).long()), {"x": torch.randn(2, 3)}, "(?i)input 'x'.* twice"),
        (([torch.randn(2, 3)], torch.zeros(2, 4).long()), {}, "nested otherwise"),
        ((torch.randn(2, 3), "words"), {}, "Input 'tokens' must be a tensor, not str"),
        ((torch.randn(2, 3), None), {}, "(?i)input 'tokens'|nested otherwise"),
        ((torch.randn(2, 3), torch.zeros(3, 4).long()), {}, "batch"),
    ],
)
def test_inputs_that_do_not_fit_are_named(two_inputs, args, kwargs, message):
    with pytest.raises(PenjingError, match=message):
        two_inputs(*args, **kwargs)


@pytest.mark.parametrize("example", [3, "x", None, [], {}, (1, 2)])
def test_example_inputs_without_tensors_are_refused(example):
    with pytest.raises(PenjingError, match="example_inputs"):
        capture(nn.Linear(3, 3), example)


def test_what_is_no_module_is_refused():
    with pytest.raises(PenjingError, match="an nn"):
        capture(torch.relu, torch.randn(2, 3))
    graph = capture(nn.Linear(3, 3), torch.randn(2, 3))
    with pytest.raises(PenjingError, match="graph already"):
        capture(graph, torch.randn(2, 3))


def test_a_model_that_fails_on_its_inputs_shows_its_line():
    class Wrong(nn.Module):
        def forward(self, x):
            return x @ torch.zeros(7, 7)

    with pytest.raises(PenjingError, match=r"fails on its example inputs.*(\n.*)*test_capture.py:\d+ return x @"):
        capture(Wrong(), torch.randn(2, 3))


def test_a_model_that_depends_on_its_data_shows_its_line():
    class Branches(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return x * 2

    with pytest.raises(PenjingError, match=r"can't capture Branches(.*\n)*.*test_capture.py:\d+ if x.sum"):
        capture(Branches(), torch.randn(2, 3))


def test_a_model_that_draws_random_numbers_is_refused():
    with pytest.raises(PenjingError, match="other values"):
        capture(Lambda(lambda x: x + torch.rand_like(x)), torch.randn(2, 3))


# State


class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 3)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.register_buffer("shift", torch.randn(3))
        self.register_buffer("hidden", torch.randn(3), persistent=False)
        self.constant = torch.tensor([1.0, 2.0, 3.0])

    def forward(self, x):
        return self.used(x) * self.frozen + self.shift + self.hidden + self.constant + torch.tensor(0.5)


def test_state_dicts_fit_both_ways():
    model = Stateful()
    graph = capture(model, torch.randn(2, 3))
    assert list(graph.state_dict()) == list(model.state_dict())
    other = Stateful()
    with torch.no_grad():
        other.hidden.copy_(model.hidden)
    graph.load_state_dict(other.state_dict())
    x = torch.randn(4, 3)
    assert torch.allclose(graph(x), other(x))
    model.load_state_dict(graph.state_dict())
    assert torch.allclose(graph(x), model(x))


def test_frozen_and_unused_parameters_stay_so():
    model = Stateful()
    graph = capture(model, torch.randn(2, 3))
    expected = {name: p.requires_grad for name, p in model.named_parameters()}
    assert {name: p.requires_grad for name, p in graph.named_parameters()} == expected
    assert not expected["frozen"]


def test_a_model_on_which_no_parameter_depends_is_captured():
    graph = capture(Lambda(lambda x: x * 2), torch.randn(2, 3))
    assert graph.cost().params == 0 and list(graph.parameters()) == []


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.embed(tokens))


def test_tied_parameters_stay_tied_and_count_once():
    graph = capture(Tied(), torch.randint(0, 11, (2, 5)))
    assert graph.tensor("embed.weight") is graph.tensor("head.weight")
    assert graph.ties() == {"head.weight": "embed.weight"}
    assert graph.cost().params == 44 and graph.cost().weight_bytes == 176
    assert sum(row.params for row in graph.cost().rows) == 44


def test_close_compares_relative_to_the_largest_value():
    a = torch.tensor([100.0, 1.0])
    assert close(a + 0.05, a, 1e-3) and not close(a + 0.2, a, 1e-3)
    assert not close(a[:1], a, 1e-3)
    assert not close(torch.tensor([float("nan"), 1.0]), a, 1e-3)
    assert close(torch.tensor([float("inf"), 1.0]), torch.tensor([float("inf"), 1.0]), 1e-3)


class Stepped(nn.Module):
    """A recurrent layer that is given its state, whose second axis is the batch."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(3, 5, batch_first=True)

    def forward(self, x, h):
        return self.cell(x, h)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_axes_that_must_be_equal_are_freed_and_tried_together(batch):
    model = Stepped()
    graph = capture(model, (torch.randn(batch, 4, 3), torch.randn(1, batch, 5)), dynamic={"h": (1,)})
    assert graph.batch is None
    x, h = torch.randn(7, 4, 3), torch.randn(1, 7, 5)
    for actual, expected in zip(graph(x, h), model(x, h), strict=True):
        assert torch.allclose(actual, expected, atol=1e-6)
    with pytest.raises(PenjingError, match="same size"):
        graph(x, h[:, :3])


def test_further_axes_that_must_be_equal_are_tried_together():
    model = Lambda(lambda x, mask: (x * mask.unsqueeze(2)).sum(1))
    inputs = (torch.randn(2, 6, 3), torch.ones(2, 6))
    graph = capture(model, inputs, dynamic={"args_0": (1,), "args_1": (1,)})
    x, mask = torch.randn(5, 9, 3), torch.ones(5, 9)
    assert torch.allclose(graph(x, mask), model(x, mask), atol=1e-6)
    with pytest.raises(PenjingError, match=r"half and at twice|size 6 of axis 1"):
        capture(model, inputs, dynamic={"args_0": (1,)})


def test_an_error_of_layers_alone_names_no_line_and_does_not_say_that_it_is_unknown():
    with pytest.raises(
        PenjingError, match=r"fails on its example inputs: RuntimeError: (addmm: )?mat1 and mat2 .*$"
    ) as told:
        capture(nn.Sequential(nn.Linear(4, 3)), torch.zeros(4, 7))
    assert "unknown line" not in str(told.value) and "\n" not in str(told.value)
