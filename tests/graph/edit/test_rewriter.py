"""What is written into a graph keeps the origin of the node that it stands for, and stands where it should."""

import operator

import pytest
import torch
from torch import fx, nn

from penjing.graph import capture
from penjing.graph.edit.rewriter import Writer, insert_behind, origin, replace, set_bias

aten = torch.ops.aten


class Net(nn.Module):
    """Two layers, one of them without a bias."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5, bias=False), nn.Linear(5, 2)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return capture(Net().eval(), X)


def the(graph, target):
    """The first call of this op."""
    return next(node for node in graph.program.graph.nodes if node.target is target)


def test_a_written_node_has_the_origin_of_the_node_that_it_stands_for(graph):
    relu, layer = the(graph, aten.relu.default), the(graph, aten.linear.default)
    own = Writer.before(relu)(aten.neg.default, layer)
    others = Writer.before(relu, on_behalf_of=layer)(aten.neg.default, layer)
    assert layer.meta["module"] == "first" and "self.first(x)" in layer.meta["source"]
    assert origin(own) == origin(relu) and origin(others) == origin(layer) == {
        "module": "first",
        "source": layer.meta["source"],
    }


def test_what_else_a_node_knows_is_not_passed_on(graph):
    relu = the(graph, aten.relu.default)
    relu.meta["mine"] = 1
    made = Writer.before(relu, meta={"yours": 2})(aten.neg.default, relu.args[0])
    assert made.meta == {**origin(relu), "yours": 2}


def test_nodes_stand_in_the_order_in_which_they_are_written(graph):
    relu = the(graph, aten.relu.default)
    before, after = Writer.before(relu), Writer.after(relu)
    made = [write(aten.neg.default, relu.args[0]) for write in (before, after, before, after)]
    order = [node for node in graph.program.graph.nodes if node is relu or node in made]
    assert order == [made[0], made[2], relu, made[1], made[3]]


def test_a_writer_that_knows_values_gives_each_node_its_shape_and_dtype(graph):
    relu = the(graph, aten.relu.default)
    write = Writer.after(relu, values=True)
    made = write(aten.to.dtype, write(aten.sum.dim_IntList, relu, [1], keepdim=True), torch.float64)
    assert made.meta["val"].shape[0] == relu.meta["val"].shape[0] and made.meta["val"].shape[1] == 1
    assert made.meta["val"].dtype == torch.float64


def test_names_stay_unique(graph):
    relu = the(graph, aten.relu.default)
    write = Writer.before(relu)
    made = [write.named("relu", aten.neg.default, relu.args[0]), write.named("relu", aten.neg.default, relu.args[0])]
    names = [node.name for node in graph.program.graph.nodes]
    assert len(set(names)) == len(names) and [node.name for node in made] == ["relu_1", "relu_2"]


def test_an_inserted_node_is_read_in_place_of_the_one_that_it_reads(graph):
    relu = the(graph, aten.relu.default)
    (reader,) = relu.users
    doubled = Writer.after(relu)(aten.mul.Tensor, relu, 2.0)
    insert_behind(relu, doubled)
    graph.refresh()
    assert list(relu.users) == [doubled] and list(doubled.users) == [reader]
    hidden = torch.relu(X @ graph.tensor("first.weight").T)
    expected = 2 * hidden @ graph.tensor("second.weight").T + graph.tensor("second.bias")
    assert torch.allclose(graph(X), expected, atol=1e-6)


def test_a_node_is_replaced_by_what_computes_the_same(graph):
    before, relu = graph(X), the(graph, aten.relu.default)
    replace(relu, Writer.before(relu)(aten.clamp_min.default, relu.args[0], 0))
    graph.refresh()
    assert not any(node.target is aten.relu.default for node in graph.program.graph.nodes)
    assert torch.equal(graph(X), before)


def test_a_node_with_several_results_is_replaced_one_by_one():
    nodes = fx.Graph()
    x = nodes.placeholder("x")
    largest = nodes.call_function(aten.max.dim, (x, 1))
    values, unused = (nodes.call_function(operator.getitem, (largest, index)) for index in (0, 1))
    nodes.output(values)
    replace(largest, [Writer.before(largest)(aten.amax.default, x, [1]), None])
    assert largest not in nodes.nodes and unused not in nodes.nodes
    assert torch.equal(fx.GraphModule(nn.Module(), nodes)(X), X.max(1).values)


@pytest.mark.parametrize("written", ["no bias", "bias=None", "a bias"])
def test_a_bias_is_set_whether_there_was_one_or_not(graph, written):
    layer = the(graph, aten.linear.default)
    if written == "bias=None":
        layer.args, layer.kwargs = layer.args[:2], {"bias": None}
    graph.set_tensor("first.bias", nn.Parameter(torch.arange(5.0)))
    if written == "a bias":
        graph.set_tensor("first.old", nn.Parameter(torch.ones(5)))
        layer.args = (*layer.args[:2], Writer.before(layer).fetch("first.old"))
    set_bias(layer, Writer.before(layer).fetch("first.bias"))
    graph.refresh()
    hidden = torch.relu(X @ graph.tensor("first.weight").T + torch.arange(5.0))
    expected = hidden @ graph.tensor("second.weight").T + graph.tensor("second.bias")
    assert torch.allclose(graph(X), expected, atol=1e-5)
    assert "first.old" not in graph.tensors()
