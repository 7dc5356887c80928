import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.graph.capture.verify import close


class Lambda(nn.Module):
    """A model of one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor):
        return self.function(x)


def mutable_ops(graph: Graph) -> list[str]:
    return [
        str(node.target)
        for node in graph.program.graph.nodes
        if node.op == "call_function" and hasattr(node.target, "_schema") and node.target._schema.is_mutable
    ]


def first_column(x):
    y = x * 1
    y[:, 0] = 7.0
    return y


def through_one_view_twice(x):
    y = x * 1
    column = y[:, 0]
    column.add_(1)
    column.mul_(2)
    return y, column


def through_nested_views(x):
    y = x * 1
    tail = y[:, 1:]
    first = tail[:, 0]
    first.add_(1)
    tail.mul_(2)
    return y, tail, first


def view_read_after_its_base_changed(x):
    y = x * 1
    column = y[:, 1]
    y.add_(5)
    return column


def two_views_of_one_tensor(x):
    y = x * 1
    a, b = y[:, :2], y[:, 1:3]
    a.add_(1)
    b.mul_(3)
    return a, b, y


def tapped_value(x):
    y = x * 1
    before = y + 0
    y += 1
    return before, y


def masked(x):
    y = x * 1
    y.masked_fill_(y > 0, -1.0)
    return y


def indexed(x):
    y = x * 1
    y[y < 0] = 0.5
    return y


def copied(x):
    y = torch.zeros_like(x)
    y[:, 2:].copy_(x[:, 2:])
    y[:, 0].copy_(x[:, 1])
    return y


def through_transpose_and_view(x):
    y = x * 1
    y.transpose(1, 2).select(1, 0).mul_(4)
    y.view(y.shape[0], -1)[:, 3:5].fill_(2.0)
    y.permute(2, 0, 1)[1].zero_()
    y.unsqueeze(1).squeeze(1).neg_()
    return y


def a_copy_is_no_view(x):
    y = x * 1
    copies = y.transpose(1, 2).contiguous(), y.to(torch.float64), y.transpose(1, 2).reshape(y.shape[0], -1)
    for copy in copies:
        copy.add_(1)
    return y, *copies


def no_copy_is_a_view(x):
    y = x * 1
    y.contiguous().add_(1)
    y.to(torch.float32).mul_(2)
    y.reshape(y.shape[0], -1).sub_(3)
    return y


def pieces(x):
    y = x * 1
    a, b = y.chunk(2, 1)
    a.mul_(3)
    b.add_(1)
    c, *_ = y.split([1, 3], 1)
    c.neg_()
    y.unbind(2)[0].fill_(9.0)
    return y, a, b, c


def inside_no_grad(x):
    y = x * 1
    with torch.no_grad():
        y.add_(1)
        y[:, 0].mul_(2)
    return y


def wider_operand(x):
    y = x * 1
    y.add_(torch.ones(x.shape[-1], dtype=torch.float64))
    return y


def relus(x):
    return F.relu(x * 2, inplace=True).add_(1).clamp_(max=1.5)


WRITERS = [
    first_column,
    through_one_view_twice,
    through_nested_views,
    view_read_after_its_base_changed,
    two_views_of_one_tensor,
    tapped_value,
    masked,
    indexed,
    copied,
    through_transpose_and_view,
    a_copy_is_no_view,
    no_copy_is_a_view,
    pieces,
    inside_no_grad,
    wider_operand,
    relus,
]


@pytest.mark.parametrize("function", WRITERS, ids=lambda function: function.__name__)
def test_in_place_ops_become_functional_and_give_the_same_values(function):
    model = Lambda(function)
    graph = capture(model, torch.randn(2, 4, 3))
    assert mutable_ops(graph) == []
    x = torch.randn(5, 4, 3)
    expected, actual = model(x.clone()), graph(x)
    expected, actual = ([o] if isinstance(o, Tensor) else o for o in (expected, actual))
    for want, have in zip(expected, actual, strict=True):
        assert want.dtype == have.dtype and close(have, want, 1e-6)


def test_a_model_that_writes_into_its_input_leaves_the_graphs_input_alone():
    model = Lambda(lambda x: x.mul_(2) + x[:, :1])
    x = torch.randn(2, 3)
    kept = x.clone()
    graph = capture(model, x)
    assert torch.equal(x, kept)
    graph(x)
    assert torch.equal(x, kept)
    assert torch.allclose(graph(x), model(x.clone()))


def test_a_tapped_value_is_the_one_before_an_in_place_op():
    graph = capture(Lambda(lambda x: (x * 3).relu_()), torch.randn(2, 3))
    product = next(n.name for n in graph.program.graph.nodes if "mul" in str(n.target))
    x = torch.randn(2, 3)
    outputs, taps = graph.with_outputs([product])(x)
    assert torch.equal(taps[product], x * 3) and torch.equal(outputs, (x * 3).relu())


def test_an_in_place_op_without_a_twin_is_named_with_the_users_line():
    def write_out(x):
        y = torch.zeros_like(x)
        torch.add(x, 1, out=y)
        return y

    with pytest.raises(PenjingError, match=r"aten\.add\.out at .*test_functionalize\.py:\d+ "):
        capture(Lambda(write_out), torch.randn(2, 3))
