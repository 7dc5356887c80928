"""Layers as products of a matrix with columns of inputs, and Gram matrices of the columns, against the layers themselves."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

from penjing.data import Data
from penjing.evidence import Evidence
from penjing.evidence.gram import grams, products
from penjing.graph import capture
from penjing.graph.weights import weights
from penjing.tasks import Unlabelled


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
        self.grouped, self.depthwise = nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 6, 3, padding="same", groups=6)
        self.line, self.valid = nn.Conv1d(6, 5, 3, padding=1, stride=2), nn.Conv1d(5, 4, 2, padding="valid")
        self.linear, self.table = nn.Linear(4, 7), nn.Parameter(torch.randn(7, 3))
        self.square, self.bias = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2))

    def forward(self, x):
        x = self.depthwise(self.grouped(self.strided(x))).flatten(2)
        x = self.linear(self.valid(self.line(x)).mT) @ self.table
        return torch.addmm(self.bias, x.flatten(0, 1), self.square)


def test_a_layer_is_its_matrix_times_its_columns(monkeypatch):
    torch.manual_seed(0)
    graph = capture(Layers(), torch.randn(2, 3, 11, 10))
    x = torch.randn(3, 3, 11, 10)
    found = products(Evidence(graph, (), None, 1, 0), [weight.name for weight in weights(graph)])
    assert len(found) == 8 and all(len(layers) == 1 for layers in found.values())
    for chunk in (2**25, 1):
        monkeypatch.setattr(sys.modules["penjing.evidence.gram"], "_CHUNK", chunk)
        for name, (layer,) in found.items():
            with torch.no_grad():
                values = graph.with_outputs([layer.source, layer.node.name])(x)[1]
                matrix = layer.weight.view(graph.tensor(name)).flatten(1).unflatten(0, (layer.groups, -1))
                outputs = torch.cat([matrix @ columns for columns in layer.columns(values[layer.source])], -1).flatten(
                    0, 1
                )
            real = values[layer.node.name]
            channel = 1 if "conv" in str(layer.node.target) else real.dim() - 1
            real = real.movedim(channel, 0).flatten(1)
            bias = real[:, :1] - outputs[:, :1]  # the same for all columns
            torch.testing.assert_close(outputs + bias, real, rtol=1e-4, atol=1e-4)


def test_gram_matrices_are_sums_over_all_positions_of_all_batches():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 6, 2)).eval()
    graph, batches = capture(model, torch.randn(2, 3, 5, 6)), [(torch.randn(n, 3, 5, 6),) for n in (4, 3)]
    evidence = Evidence(graph, (), Data(None, batches, None, Unlabelled()), 16, 0)
    layers = [layer for (layer,) in products(evidence, ["0.weight", "3.weight"]).values()]
    found = grams(evidence, layers)
    x = torch.cat([batch[0] for batch in batches])
    columns = F.unfold(x, 3, padding=1).transpose(0, 1).flatten(1)
    torch.testing.assert_close(found["0.weight"], (columns @ columns.T)[None], rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        inner = model[:3](x)
    torch.testing.assert_close(found["3.weight"], (inner.T @ inner)[None], rtol=1e-4, atol=1e-3)
