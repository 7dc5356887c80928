"""Executing node by node: what is seen inside, what is changed on the way, and parts of a graph that run alone."""

import copy

import pytest
import torch
from torch import nn

from penjing.graph import capture
from penjing.graph.taps import Execution, all_values, constant_values, run_nodes, with_changes

aten = torch.ops.aten


class Net(nn.Module):
    """A linear layer, and a product with a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.scale, self.table = (
            nn.Linear(3, 4),
            nn.Parameter(torch.rand(1)),
            nn.Parameter(torch.rand(2, 4)),
        )

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        return hidden @ self.table.T, hidden


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def graph(model):
    return capture(model, torch.randn(2, 3))


def node(graph, target):
    return next(one for one in graph.program.graph.nodes if one.target is target)


def test_values_of_all_nodes_are_those_that_the_model_computes(graph, model):
    x = torch.randn(5, 3)
    found = all_values(graph.program, [x])
    assert torch.equal(found[node(graph, aten.linear.default)], model.first(x))
    assert torch.equal(found[node(graph, aten.relu.default)], model(x)[1])
    assert found.keys() == set(graph.program.graph.nodes)


def test_values_are_forgotten_behind_their_last_reader_unless_they_are_kept(graph):
    execution, x = Execution(graph.program), torch.randn(5, 3)
    execution.run(x)
    assert node(graph, aten.linear.default) not in execution.env
    execution = Execution(graph.program, keep=True)
    execution.run(x)
    assert node(graph, aten.linear.default) in execution.env


def test_each_node_is_computed_once_in_order_by_the_step(graph):
    seen = []

    def step(execution, one):
        seen.append(one)
        return execution.usual(one)

    Execution(graph.program, step).run(torch.randn(5, 3))
    assert seen == list(graph.program.graph.nodes)


def test_constants_are_what_is_computed_from_parameters_alone(graph, model):
    doubled = copy.deepcopy(graph)
    nodes = doubled.program.graph
    table = next(one for one in nodes.nodes if one.target == "table")
    with nodes.inserting_after(table):
        product = nodes.call_function(aten.mul.Tensor, (table, 2.0))
    table.replace_all_uses_with(product, delete_user_cb=lambda user: user is not product)
    doubled.refresh()
    found = constant_values(doubled.program)
    assert torch.equal(found[product], model.table * 2)
    assert {one.name for one in found} == {"first_weight", "first_bias", table.name, product.name}


def test_a_part_runs_alone_from_the_values_that_it_reads(graph):
    relu, linear = node(graph, aten.relu.default), node(graph, aten.linear.default)
    values = {linear: torch.tensor([[-1.0, 2.0, -3.0, 4.0]])}
    run_nodes(graph.program, [relu], values)
    assert values[relu].tolist() == [[0.0, 2.0, 0.0, 4.0]]
    assert values.keys() == {linear, relu}


def test_a_changed_value_is_what_all_its_readers_get(graph, model):
    x, relu = torch.randn(5, 3), node(graph, aten.relu.default)
    outputs, hidden = with_changes(graph, {relu.name: lambda value, arguments: value + arguments[0].abs()})(x)
    expected = model(x)[1] + model.first(x).abs()
    torch.testing.assert_close(hidden, expected)
    torch.testing.assert_close(outputs, expected @ model.table.T)
    torch.testing.assert_close(graph(x)[1], model(x)[1])  # the graph itself stays


def test_gradients_go_through_changed_values(graph):
    gate, x = torch.ones(4, requires_grad=True), torch.randn(5, 3)
    relu = node(graph, aten.relu.default)
    _, hidden = with_changes(graph, {relu.name: lambda value, _: value * gate})(x)
    (found,) = torch.autograd.grad(hidden.sum(), gate)
    torch.testing.assert_close(found, graph(x)[1].sum(0).detach())


def test_an_error_inside_comes_as_it_was_raised(graph):
    def step(execution, one):
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        Execution(graph.program, step).run(torch.randn(5, 3))
