import pytest
import torch
from oracle import check, share_left
from torch import nn

from networks.recurrent import Recurrent

TOKENS = torch.randint(0, 12, (2, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.LSTM(6, 8, 3, bidirectional=True, batch_first=True),
        lambda: nn.LSTM(6, 8),
        lambda: nn.LSTM(6, 8, 2, proj_size=4, batch_first=True, bidirectional=True),
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
    projected = "layer.weight_hr_l0" in graph.tensors()
    (group,) = [g for g in found.groups if "layer.weight_hh_l0" in {e.tensor for e in g.entries}]
    assert group.units == (4 if projected else 8)
    assert small.tensor("layer.weight_hh_l0").shape[1] == group.units // 2
    assert share_left(graph, small) < (0.7 if projected else 0.4)
