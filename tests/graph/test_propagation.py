"""Shapes that an edit worked out itself, and the check that they are right."""

import copy
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

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


class Filled(nn.Module):
    """Makes tensors from the elements of constants, as the head of a detector does from its strides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.strides = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3)), torch.tensor([8.0, 16.0])
        self.register_buffer("count", torch.tensor([2, 3]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).flatten(2)
        return y * torch.full((y.shape[2], 1), self.strides[1]).T + self.count[0].item() * self.strides[0].item()


def test_numbers_read_from_constants_survive_every_later_propagation_and_leave_the_batch_free() -> None:
    model, x = Filled().eval(), torch.randn(5, 3, 6, 6)
    graph = pj.capture(model, x[:2])
    again = copy.deepcopy(graph).refresh().refresh()
    assert graph.batch is None and not any("unbacked_bindings" in node.meta for node in again.program.graph.nodes)
    assert isinstance(again.program.graph.output_node().args[0][0].meta["val"].shape[0], torch.SymInt)
    torch.testing.assert_close(pj.prune(again, 0.5)(x), pj.prune(graph, 0.5)(x))
    torch.testing.assert_close(again(x), model(x))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.LSTM(6, 8, batch_first=True),
        lambda: nn.LSTM(6, 12, proj_size=4),
        lambda: nn.GRU(6, 8, batch_first=True, bias=False),
        lambda: nn.RNN(6, 8, bidirectional=True),
    ],
    ids=["lstm", "projected lstm, time first", "gru", "rnn, time first"],
)
def test_the_work_of_capturing_a_recurrent_layer_does_not_grow_with_its_steps(
    layer: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    dispatch = FakeTensorMode.dispatch
    monkeypatch.setattr(FakeTensorMode, "dispatch", lambda *args, **kw: called.append(args[1]) or dispatch(*args, **kw))
    counts = []
    for steps in (3, 40):
        module = layer()
        called.clear()
        x = torch.randn(2, steps, 6) if module.batch_first else torch.randn(steps, 2, 6)
        graph = pj.capture(module, x).refresh()
        counts.append(len(called))
        expected, found = module(x)[0], graph.program.graph.output_node().args[0][0].meta["val"]
        torch.testing.assert_close(graph(x)[0], expected)
        assert found.shape[2:] == expected.shape[2:] and found.is_contiguous() == expected.is_contiguous()
    assert counts[1] < 1.5 * counts[0]  # not equal: small sizes hit other entries of the cache
