"""Recurrent cells are two linear layers and gates; the oracle is PyTorch's own cell, and counts by hand."""

import copy
import inspect

import pytest
import torch
from oracle import check
from torch import nn

import penjing as pj
from penjing.graph import capture, channels, remove
from penjing.graph.capture.verify import close

CELLS = {
    "LSTM": nn.LSTMCell,
    "GRU": nn.GRUCell,
    "RNN with tanh": nn.RNNCell,
    "RNN with relu": lambda *sizes, **options: nn.RNNCell(*sizes, nonlinearity="relu", **options),
}
GATES = {"LSTM": 4, "GRU": 3, "RNN with tanh": 1, "RNN with relu": 1}


class Step(nn.Module):
    """One step of a streaming model: its state goes in and out."""

    def __init__(self, kind, bias=True):
        super().__init__()
        self.inp, self.cell, self.out = nn.Linear(5, 8), CELLS[kind](8, 6, bias=bias), nn.Linear(6, 4)

    def forward(self, x, h, c):
        y = torch.relu(self.inp(x))
        h, c = self.cell(y, (h, c)) if isinstance(self.cell, nn.LSTMCell) else (self.cell(y, h), c)
        return self.out(h), h, c


class Joined(Step):
    """The same step with one output, in which the new state stands behind the rest."""

    def forward(self, x, h, c):
        return torch.cat(super().forward(x, h, c)[:2], 1)


class Unrolled(nn.Module):
    """A cell that is called for each of a few steps, with a first state of zeros."""

    def __init__(self, kind):
        super().__init__()
        self.cell, self.out = CELLS[kind](5, 8), nn.Linear(8, 3)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.out(state[0] if isinstance(state, tuple) else state)


def inputs(batch):
    return torch.randn(batch, 5), torch.randn(batch, 6), torch.randn(batch, 6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_written_out_computes_what_pytorchs_computes_at_any_batch(kind, bias):
    torch.manual_seed(0)
    model = Step(kind, bias).double().eval()
    graph = capture(model, tuple(x.double() for x in inputs(2)))
    other = tuple(x.double() for x in inputs(3))
    assert graph.batch is None
    for have, want in zip(graph(*other), model(*other), strict=True):
        torch.testing.assert_close(have, want, rtol=0, atol=1e-12)
    assert set(dict(graph.named_parameters())) == set(dict(model.named_parameters()))


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_without_a_batch_axis_is_captured(kind):
    torch.manual_seed(0)
    cell = CELLS[kind](5, 6).eval()
    x = torch.randn(5)
    have, want = capture(cell, x)(x), cell(x)
    for one, other in zip(*((v if isinstance(v, tuple) else (v,)) for v in (have, want)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", CELLS)
def test_a_cells_products_are_counted_and_what_it_reads_goes_while_its_state_stays(kind):
    torch.manual_seed(0)
    model = Joined(kind).eval()
    graph, found, small = check(model, *inputs(2))
    assert graph.cost().macs == 5 * 8 + GATES[kind] * 6 * (8 + 6) + 6 * 4
    assert [(group.name, group.units) for group in found.groups] == [("inp", 8)]
    written = small.write_into(copy.deepcopy(model))
    assert (written.cell.input_size, written.cell.hidden_size) == (4, 6)
    x = inputs(3)
    assert close(written(*x), small(*x), 1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_hidden_units_go_from_all_gates_where_the_state_stays_inside(kind):
    torch.manual_seed(0)
    model = Unrolled(kind).eval()
    graph = capture(model, torch.randn(2, 3, 5))
    (group,) = channels(graph).groups
    assert group.name == "cell" and group.units == 8
    small = remove(graph, channels(graph), {0: [1, 4, 7]})
    written = small.write_into(copy.deepcopy(model))
    assert written.cell.hidden_size == 5 and written.cell.weight_ih.shape == (GATES[kind] * 5, 5)
    x = torch.randn(3, 3, 5)
    assert close(written(x), small(x), 1e-5)


def test_every_cell_of_pytorch_is_known():
    assert {cell for _, cell in inspect.getmembers(nn, inspect.isclass) if issubclass(cell, nn.RNNCellBase)} == {
        nn.RNNCellBase, nn.RNNCell, nn.LSTMCell, nn.GRUCell,
    }  # fmt: skip


def test_a_quantised_cell_runs_its_products_in_integers(tmp_path):
    torch.manual_seed(0)
    graph = capture(Step("LSTM").eval(), inputs(2))
    quantised = pj.quantize(graph, [inputs(32) for _ in range(2)])
    file = pj.lower(quantised, path=tmp_path / "step.onnx")
    products = [node for node in pj.targets.profile(file) if node.macs]
    assert len(products) == 4 and all(node.integer for node in products)
    assert sum(node.macs for node in products) == graph.cost().macs
