"""Kernels that lost positions: the smaller layer computes what the masked one computed, and costs less."""

import copy
import math

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from penjing.errors import PenjingError
from penjing.graph import capture, channels, kernels, load, remove, shrink_kernels
from penjing.targets import lower, run

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = (13, 11, 8), (9, 16, 10)


class Net(nn.Module):
    """A convolution between two that only mix channels."""

    def __init__(self, axes=2, kernel=3, **options):
        super().__init__()
        make = CONVOLUTIONS[axes]
        self.stem, self.conv, self.head = make(4, 8, 1), make(8, 8, kernel, **options), make(8, 3, 1)

    def forward(self, x):
        return self.head(torch.relu(self.conv(torch.relu(self.stem(x)))))


class Several(nn.Module):
    """As many alike convolutions of one input, each of which is to keep other positions."""

    def __init__(self, count, axes=2, **options):
        super().__init__()
        make = CONVOLUTIONS[axes]
        self.stem = make(4, 8, 1)
        self.convs = nn.ModuleList(make(8, 8, 3, **options) for _ in range(count))

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return torch.cat([conv(x) for conv in self.convs], 1)


def captured(model, axes=2):
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    example = torch.randn(2, 4, *SIZES[0][:axes])
    return capture(model.eval(), example, dynamic={"x": tuple(range(2, 2 + axes))})


def masked(graph, positions, weight="conv.weight"):
    """The graph with only these positions, counted row by row, left of each kernel."""
    graph = copy.deepcopy(graph)
    shape = graph.tensor(weight).shape
    stays = torch.zeros(shape[2:].numel(), dtype=torch.bool)
    stays[list(positions)] = True
    graph.masks[weight] = stays.reshape(shape[2:]).expand(shape).clone()
    graph.apply_masks()
    return graph


def assert_same(small, graph, axes=2, call=None):
    for batch, sizes in zip((1, 3), SIZES, strict=True):
        x = torch.randn(batch, 4, *sizes[:axes])
        torch.testing.assert_close((call or small)(x), graph(x), atol=1e-5, rtol=1e-5)


def ops(graph):
    return [
        node.target._schema.name.partition("::")[2] for node in graph.program.graph.nodes if node.op == "call_function"
    ]


KINDS = {
    "padded": {"padding": 1},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "dilated and strided": {"dilation": 2, "padding": 1, "stride": 2},
    "grouped": {"groups": 4, "padding": 1},
    "depthwise": {"groups": 8, "padding": 1, "stride": 2},
    "same": {"padding": "same", "dilation": 2},
    "valid": {"padding": "valid", "bias": False},
}
PLACES = {
    "a corner": (0,), "a row": (0, 1, 2), "two columns": (0, 1, 3, 4, 6, 7), "outer columns": (0, 2, 3, 5, 6, 8),
    "a cross": (1, 3, 4, 5, 7), "an L": (3, 6, 7),
}  # fmt: skip


def several(kind, places, axes=2):
    graph = captured(Several(len(places), axes, **KINDS[kind]), axes)
    for i, kept in enumerate(places):
        graph = masked(graph, kept, f"convs.{i}.weight")
    return graph


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_computes_what_the_masked_layer_computes(kind):
    sparse = several(kind, [PLACES[name] for name in ("a row", "outer columns", "a cross", "an L")])
    for form in ("auto", "rectangle", "gather"):
        small = shrink_kernels(sparse, form)
        assert_same(small, sparse)
        assert small.cost().macs < sparse.cost().macs and small.cost().params < sparse.cost().params
    assert sparse.tensor("convs.0.weight").shape[2:] == (3, 3)  # verbs leave their argument alone


@pytest.mark.parametrize("form", ["rectangle", "gather"])
def test_a_kernel_may_be_larger_than_what_it_looks_at(form):
    graph = captured(Several(1, padding=2, dilation=3))
    for places in ("a corner", "a row"):
        sparse = masked(graph, PLACES[places], "convs.0.weight")
        small = shrink_kernels(sparse, form)
        for size in (3, 4):
            x = torch.randn(2, 4, size, size)
            torch.testing.assert_close(small(x), sparse(x))


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_positions_of_any_convolution_can_go(data):
    axes = data.draw(st.sampled_from([1, 2, 3]))
    each = lambda low, high: [data.draw(st.integers(low, high)) for _ in range(axes)]  # noqa: E731
    window = each(1, 3)
    options = {"stride": each(1, 3), "padding": each(0, 3), "dilation": each(1, 2)}
    groups = data.draw(st.sampled_from([1, 2, 8]))
    places = data.draw(st.sets(st.integers(0, math.prod(window) - 1), min_size=1))
    sparse = masked(captured(Net(axes, window, groups=groups, **options), axes), places)
    for form in ("auto", "gather"):
        small = shrink_kernels(sparse, form)
        assert_same(small, sparse, axes)
        left = small.masks.get("conv.weight", torch.ones_like(small.tensor("conv.weight")))
        assert int(left.sum()) == len(places) * 64 // groups
        rectangle_of_a_depthwise_kernel, nothing_went = (form, groups) == ("auto", 8), len(places) == math.prod(window)
        assert "conv.weight" not in small.masks or rectangle_of_a_depthwise_kernel or nothing_went


@pytest.mark.parametrize(("places", "shape", "words"), [
    ("a row", (1, 3), "a 1×3 kernel"), ("two columns", (3, 2), "a 3×2 kernel"), ("a corner", (1, 1), "a 1×1 kernel"),
    ("outer columns", (3, 2), "a 3×2 kernel, dilated"),
])  # fmt: skip
def test_positions_that_fill_a_grid_become_a_smaller_kernel(places, shape, words):
    sparse = masked(captured(Net(padding=1)), PLACES[places])
    assert [kernel.described() for kernel in kernels(sparse)] == [words]
    small = shrink_kernels(sparse)
    assert small.tensor("conv.weight").shape == (8, 8, *shape) and small.masks == {} and "slice" not in ops(small)
    assert small.cost().params == sparse.cost().params - 64 * (9 - math.prod(shape))


def test_padding_is_a_node_of_its_own_only_where_it_is_uneven():
    graph = captured(Net(padding=1))
    assert "pad" in ops(shrink_kernels(masked(graph, PLACES["a row"])))
    assert "pad" not in ops(shrink_kernels(masked(graph, PLACES["outer columns"])))
    middle = shrink_kernels(masked(captured(Net(kernel=5, padding=2)), (6, 7, 8, 11, 12, 13, 16, 17, 18)))
    (node,) = [node for node in middle.program.graph.nodes if node.meta.get("module") == "conv"]
    assert node.args[4] == [1, 1] and middle.tensor("conv.weight").shape == (8, 8, 3, 3)


@pytest.mark.parametrize("groups", [1, 4])
def test_other_positions_become_a_gather_and_one_product(groups):
    sparse = masked(captured(Net(padding=1, groups=groups)), PLACES["a cross"])
    assert [kernel.described() for kernel in kernels(sparse)] == ["a gather of 5 positions"]
    small = shrink_kernels(sparse)
    assert small.tensor("conv.weight").shape == (8, 5 * 8 // groups, 1, 1) and small.masks == {}
    before, after = ({row.module: row for row in graph.cost().rows if row.macs}["conv"] for graph in (sparse, small))
    assert after.macs * 9 == before.macs * 5 and (after.params - 8) * 9 == (before.params - 8) * 5


def test_a_depthwise_kernel_is_cut_to_what_holds_its_positions_and_gathered_only_when_asked_to():
    sparse = masked(captured(Net(padding=1, groups=8)), PLACES["an L"])
    (kernel,) = kernels(sparse)
    rows, columns = (len(places) for places in kernel.grid)
    assert kernel.described() == f"a {rows}×{columns} kernel of which {len(PLACES['an L'])} positions are used"
    cut, gathered = shrink_kernels(sparse), shrink_kernels(sparse, form="gather")
    assert cut.tensor("conv.weight").shape == (8, 1, rows, columns) and "conv.weight" in cut.masks
    assert gathered.tensor("conv.weight").shape == (8, len(PLACES["an L"]), 1, 1)
    for small in (cut, gathered):
        assert_same(small, sparse)


def test_a_rectangle_around_other_positions_masks_what_lies_between():
    sparse = masked(captured(Net(padding=1)), PLACES["an L"])
    small = shrink_kernels(sparse, "rectangle")
    assert small.tensor("conv.weight").shape == (8, 8, 2, 2)
    assert torch.equal(small.masks["conv.weight"][0, 0], torch.tensor([[True, False], [True, True]]))
    assert (small.tensor("conv.weight") != 0).equal(small.masks["conv.weight"])
    assert_same(small, sparse)


@pytest.mark.parametrize("form", ["rectangle", "gather"])
def test_single_weights_that_are_masked_stay_so_in_the_smaller_weight(form):
    sparse = masked(captured(Net(padding=1)), (3, 4, 6, 7))
    sparse.masks["conv.weight"] &= torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    sparse.apply_masks()
    small = shrink_kernels(sparse, form)
    assert int(small.masks["conv.weight"].sum()) == int(sparse.masks["conv.weight"].sum())
    assert (small.tensor("conv.weight") != 0).equal(small.masks["conv.weight"])
    assert_same(small, sparse)


def test_masks_that_take_no_whole_position_change_nothing():
    graph = captured(Net())
    graph.masks["conv.weight"] = torch.rand(8, 8, 3, 3) < 0.5
    graph.masks["head.weight"] = torch.zeros(3, 8, 1, 1, dtype=torch.bool)
    assert kernels(graph) == ()
    assert shrink_kernels(graph).tensor("conv.weight").shape == (8, 8, 3, 3)


def test_a_convolution_that_is_called_twice_shrinks_at_both_places():
    class Twice(Net):
        def forward(self, x):
            x = self.conv(torch.relu(self.stem(x)))
            return self.head(self.conv(F.avg_pool2d(torch.relu(x), 2)))

    for places in ("a row", "a cross"):
        sparse = masked(captured(Twice(padding=1)), PLACES[places])
        small = shrink_kernels(sparse)
        assert_same(small, sparse)
        assert small.tensor("conv.weight").numel() == 64 * len(PLACES[places])


def test_convolutions_that_are_tied_shrink_together_and_stay_tied():
    class Tied(Net):
        def __init__(self):
            super().__init__(padding=1)
            self.again = nn.Conv2d(8, 8, 3, stride=2)
            self.again.weight = self.conv.weight

        def forward(self, x):
            return self.head(self.again(torch.relu(self.conv(torch.relu(self.stem(x))))))

    sparse = masked(captured(Tied()), PLACES["an L"])
    small = shrink_kernels(sparse)
    assert small.tensor("again.weight") is small.tensor("conv.weight")
    assert_same(small, sparse)


class Reader(Net):
    """Reads its kernel in some other way, too."""

    def forward(self, x):
        return super().forward(x) + self.conv.weight.mean()


class Shared(Net):
    """Uses one kernel in convolutions of different groups."""

    def forward(self, x):
        x = F.conv2d(torch.relu(self.stem(x)), self.conv.weight, groups=4)
        return self.head(F.conv2d(x[:, :2], self.conv.weight))


class Transposed(Net):
    def __init__(self):
        super().__init__()
        self.conv = nn.ConvTranspose2d(8, 8, 3)


@pytest.mark.parametrize(("model", "why"), [
    (Reader(), "masked, since aten.mean.default reads it too"),
    (Shared(groups=4), "masked, since convolutions of unlike groups share it"),
    (Transposed(), "masked, since a transposed convolution uses it"),
])  # fmt: skip
def test_kernels_that_others_need_whole_stay_masked_and_it_is_said_why(model, why):
    sparse = masked(captured(model), PLACES["a row"])
    assert [kernel.described() for kernel in kernels(sparse)] == [why]
    small = shrink_kernels(sparse)
    assert torch.equal(small.tensor("conv.weight"), sparse.tensor("conv.weight")) and "conv.weight" in small.masks


@pytest.mark.parametrize("kind", ["padded", "strided", "grouped", "depthwise"])
def test_files_hold_the_smaller_layers_and_compute_the_same(kind, tmp_path):
    sparse = several(kind, [PLACES[name] for name in ("a row", "outer columns", "an L")])
    shrink_kernels(sparse).save(tmp_path / "small.penjing")
    small = load(tmp_path / "small.penjing")
    assert_same(small, sparse)
    artifact = lower(small, path=tmp_path / "small.onnx")
    assert_same(None, sparse, call=lambda x: run(artifact, x))
    stored = {value.name: tuple(value.dims) for value in onnx.load(artifact.path).graph.initializer}
    for i, shape in enumerate([(1, 3), (3, 2), (2, 2) if kind == "depthwise" else (1, 1)]):  # an L: cut or gathered
        assert stored[f"convs.{i}.weight"][2:] == shape


@pytest.mark.parametrize("axes", [1, 3])
def test_other_axes_are_lowered_too(axes, tmp_path):
    sparse = several("padded", [(0,), (0, 1)], axes)
    artifact = lower(shrink_kernels(sparse), path=tmp_path / "small.onnx")
    assert_same(None, sparse, axes, call=lambda x: run(artifact, x))


@pytest.mark.parametrize("places", ["a row", "a cross"])
@pytest.mark.parametrize("groups", [1, 4])
def test_the_smaller_layer_trains_as_the_masked_one_does(groups, places):
    sparse = masked(captured(Net(padding=1, groups=groups)), PLACES[places])
    small = shrink_kernels(sparse)
    x = torch.randn(3, 4, 9, 9)
    for graph in (sparse, small):
        graph.train()
        optimizer = torch.optim.SGD(graph.parameters(), 0.01, momentum=0.9)
        for _ in range(5):
            optimizer.zero_grad()
            graph(x).square().mean().backward()
            optimizer.step()
            graph.apply_masks()
    assert_same(small.eval(), sparse.eval())


@pytest.mark.parametrize("places", ["a row", "a cross"])
@pytest.mark.parametrize("groups", [1, 8])
def test_channels_can_go_afterwards(groups, places):
    sparse = masked(captured(Net(padding=1, groups=groups)), PLACES[places])
    small = shrink_kernels(sparse)
    found, others = channels(small), channels(sparse)
    assert [(group.name, group.units) for group in found.groups] == [
        (group.name, group.units) for group in others.groups
    ]
    gone = {position: torch.tensor([1, 4]).numpy() for position in range(len(found.groups))}
    assert_same(remove(small, found, gone), remove(sparse, others, gone))


def test_a_form_that_there_is_none_of_is_refused():
    with pytest.raises(PenjingError, match=r"Unknown form 'rectangel'\. Did you mean 'rectangle'"):
        shrink_kernels(captured(Net()), "rectangel")
