import pytest
import torch
from oracle import check, share_left, zeroed
from torch import nn

from networks.recurrent import Recurrent
from penjing.graph import capture, channels, remove
from penjing.graph.capture.verify import close

TOKENS = torch.randint(0, 12, (2, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.LSTM(6, 8, 3, bidirectional=True, batch_first=True),
        lambda: nn.LSTM(6, 8),
        lambda: nn.LSTM(6, 12, 2, proj_size=4, batch_first=True, bidirectional=True),
        lambda: nn.GRU(6, 8, 2, batch_first=True, bias=False),
        lambda: nn.GRU(6, 8, bidirectional=True),
        lambda: nn.RNN(6, 8, 2, batch_first=True),
        lambda: nn.RNN(6, 8, nonlinearity="relu"),
    ],
    ids=["lstm", "one lstm", "projected lstm", "gru without bias", "gru", "rnn", "relu rnn"],
)
def test_hidden_units_go_from_all_gates_layers_and_directions(layer):
    torch.manual_seed(0)
    graph, found, small = check(Recurrent(layer()), TOKENS)
    (group,) = [g for g in found.groups if ("layer.weight_hh_l0", 0) in {(e.tensor, e.axis) for e in g.entries}]
    assert group.units in (8, 12)
    assert small.tensor("layer.weight_hh_l0").shape[0] == graph.tensor("layer.weight_hh_l0").shape[0] // 2
    assert share_left(graph, small) < 0.4


def test_projected_units_go_apart_from_hidden_ones():
    torch.manual_seed(0)
    layer = nn.LSTM(6, 12, 2, proj_size=4, batch_first=True, bidirectional=True)
    _graph, found, small = check(Recurrent(layer), TOKENS)
    (projected,) = [g for g in found.groups if ("layer.weight_hr_l0", 0) in {(e.tensor, e.axis) for e in g.entries}]
    assert projected.units == 4
    assert small.tensor("layer.weight_hr_l1_reverse").shape == (2, 6)
    assert small.tensor("layer.weight_ih_l1").shape == (24, 4)


def test_hidden_units_never_become_as_few_as_projected_ones():
    """ATen would take such a layer for one without projection; one hidden unit more stays."""
    torch.manual_seed(0)
    graph = capture(Recurrent(nn.LSTM(6, 8, proj_size=4, batch_first=True)).eval(), TOKENS)
    found = channels(graph)
    (position,) = [
        i for i, g in enumerate(found.groups) if ("layer.weight_hr_l0", 1) in {(e.tensor, e.axis) for e in g.entries}
    ]
    small = remove(graph, found, {position: [0, 1, 2, 3]})
    expected = zeroed(graph, found.groups[position], [0, 1, 2])  # 3 matters most
    assert small.tensor("layer.weight_hr_l0").shape == (4, 5)
    assert close(small(TOKENS), expected(TOKENS), 1e-4)
