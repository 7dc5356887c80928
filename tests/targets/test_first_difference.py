"""Where a file computes something else than its graph, the error names the op from which on it does."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.targets import find_target, lower, targets

aten = torch.ops.aten


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.gate = nn.Sigmoid()

    def forward(self, x):
        x = self.first(x).relu()
        x = self.gate(self.second(x))
        return self.third(x), x.mean(1)


@pytest.fixture
def wrong(monkeypatch):
    """Adds targets that write other ops than the graph's; returns a function that makes one."""
    monkeypatch.setattr(targets, "_entries", dict(targets._entries))
    onnx = find_target("onnxruntime")

    def make(old, new):
        def lowered(graph, path):
            spoilt = copy.deepcopy(graph)
            for node in spoilt.program.graph.nodes:
                if node.target is old:
                    node.target = new
            return onnx.lower(spoilt.refresh(), path)

        def mistaken():
            """A target with a mistake."""
            return replace(onnx, lower=lowered)

        targets.register(source="nowhere", packages=("numpy",))(mistaken)

    return make


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return capture(Net().eval(), torch.randn(2, 8))


def test_the_op_and_the_users_line_are_named(wrong, graph, tmp_path):
    wrong(aten.relu.default, aten.neg.default)
    line = rf"at .*{__file__.rpartition('/')[2]}:\d+ x = self.first\(x\).relu\(\)"
    said = rf"doesn't compute .* The first value that differs is that of 'aten.relu.default', {line}"
    with pytest.raises(PenjingError, match=said):
        lower(graph, "mistaken", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_op_within_a_module_is_named_with_it(wrong, graph, tmp_path):
    wrong(aten.sigmoid.default, aten.tanh.default)
    with pytest.raises(PenjingError, match=r"The first value that differs is that of 'aten.sigmoid.default' in 'gate'"):
        lower(graph, "mistaken", tmp_path / "model.onnx")


def test_the_graph_stays_as_it_was(wrong, graph, tmp_path):
    wrong(aten.relu.default, aten.neg.default)
    graph.train()
    code, state = graph.program.code, {name: value.clone() for name, value in graph.state_dict().items()}
    with pytest.raises(PenjingError, match="The first value that differs"):
        lower(graph, "mistaken", tmp_path / "model.onnx")
    assert graph.training and graph.program.code == code
    assert all(torch.equal(value, state[name]) for name, value in graph.state_dict().items())


def test_where_only_the_output_is_wrong_nothing_in_the_middle_is_named(monkeypatch, graph, tmp_path):
    monkeypatch.setattr(targets, "_entries", dict(targets._entries))
    onnx = find_target("onnxruntime")

    class Halved:
        def __init__(self, artifact, threads):
            self._inner, self._own = onnx.session(artifact, threads), len(artifact.outputs) == 2

        def run(self, inputs):
            found = self._inner.run(inputs)
            return [value / 2 for value in found] if self._own else found

    def mistaken():
        """A target whose sessions are wrong."""
        return replace(onnx, session=Halved)

    targets.register(source="nowhere", packages=("numpy",))(mistaken)
    with pytest.raises(PenjingError, match=r"each size that is needed\.$"):
        lower(graph, "mistaken", tmp_path / "model.onnx")
