"""Shapes that an edit worked out itself, and the check that they are right."""

import copy
import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.graph import Graph, channels, remove
from penjing.graph.propagation import confirms, propagate


class Encoder(nn.Module):
    """Convolution, flattening, attention and a recurrent layer: views, sizes that depend on the batch, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.qkv = nn.Linear(16, 48)
        self.lstm = nn.LSTM(16, 12, batch_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        b, n, _ = tokens.shape
        q, k, v = self.qkv(tokens).reshape(b, n, 3, 4, 4).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, 16)
        hidden, _ = self.lstm(attended)
        return self.head(hidden.mean(1))


@pytest.fixture(scope="module")
def captured() -> Graph:
    return pj.capture(Encoder(), torch.randn(2, 3, 6, 6))


@pytest.fixture
def halved(captured: Graph) -> Graph:
    graph = copy.deepcopy(captured)
    found = channels(graph)
    return remove(graph, found, {i: np.arange(group.units // 2) for i, group in enumerate(found.groups)})


def _shapes(graph: Graph) -> dict[str, list[list[str]]]:
    """Sizes as text: a free size by what it stands for at the example's, so that other symbols compare too."""

    def one(value: object) -> list[list[str]]:
        tensors = value if isinstance(value, list | tuple) else [value]
        return [
            [f"free {size.node.hint}" if isinstance(size, torch.SymInt) else str(size) for size in tensor.shape]
            for tensor in tensors
            if isinstance(tensor, Tensor)
        ]

    return {node.name: one(node.meta.get("val")) for node in graph.program.graph.nodes}


def test_the_shapes_that_surgery_works_out_are_those_of_propagation(halved: Graph) -> None:
    assert confirms(halved)
    worked_out = _shapes(halved)
    propagate(halved)
    assert _shapes(halved) == worked_out


def test_a_wrong_shape_is_not_confirmed(halved: Graph) -> None:
    node = next(n for n in halved.program.graph.nodes if n.target is torch.ops.aten.conv2d.default)
    node.meta["val"] = node.meta["val"][:, 1:]
    assert not confirms(halved)


def test_an_op_that_no_longer_fits_is_not_confirmed_and_told_in_one_error(
    halved: Graph, caplog: pytest.LogCaptureFixture
) -> None:
    halved.set_tensor("head.weight", nn.Parameter(torch.zeros(5, 7)), persistent=True)
    assert not confirms(halved)
    with pytest.raises(pj.PenjingError, match="Shapes don't fit"):
        halved.refresh(shapes_known=True)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
