"""Files compute what their graphs compute, at other sizes than the example's; what doesn't is never written."""

from dataclasses import replace

import onnx
import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.targets import _verbs, find_target, lower, session
from penjing.targets._other_sizes import check_other_sizes

FREE = {"x": (0, 1)}


class Recurrent(nn.Module):
    """Layers of every kind beside one another, each with its sequence and its last states as outputs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                "gru": nn.GRU(6, 4),
                "gru_both": nn.GRU(6, 4, num_layers=2, bidirectional=True, batch_first=True),
                "lstm": nn.LSTM(6, 4, num_layers=2, bias=False),
                "lstm_both": nn.LSTM(6, 4, bidirectional=True),
                "rnn_tanh": nn.RNN(6, 4, bidirectional=True),
                "rnn_relu": nn.RNN(6, 4, num_layers=2, nonlinearity="relu"),
            }
        )

    def forward(self, x):
        return {name: layer(x) for name, layer in self.layers.items()}


def test_recurrent_layers_run_at_any_length_and_batch_whichever_axis_is_time(tmp_path):
    torch.manual_seed(0)
    model = Recurrent().eval()
    run = session(lower(capture(model, torch.randn(3, 2, 6), dynamic=FREE), path=tmp_path / "model.onnx"))
    for shape in ((3, 2), (4, 7), (1, 1)):
        x = torch.randn(*shape, 6)
        with torch.no_grad():
            expected = model(x)
        torch.testing.assert_close(run(x), expected, rtol=1e-4, atol=1e-5)


def graph_of(function, example):
    class Model(nn.Module):
        def forward(self, x):
            return function(x)

    return capture(Model(), example, dynamic=FREE)


# What a graph computes, and what computes the same only at the exported sizes: batch 2, length 5.
NUMBERS = {
    "a batch in a value": (
        lambda x: x - x.mean(0),
        lambda x: x - x.sum(0) / 2,
        "axis 0 of input 'x' has size 3 instead of 2",
    ),
    "a length in a value": (lambda x: x.mean(1), lambda x: x.sum(1) / 5, "axis 1 of input 'x' has size 4 instead of 5"),
}


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_file_in_which_a_size_became_a_number_is_refused_and_the_older_one_stays(target, name, tmp_path, monkeypatch):
    right, wrong, where = NUMBERS[name]
    graph, other = (graph_of(function, torch.randn(3, 5)) for function in (right, wrong))
    honest = find_target(target)
    monkeypatch.setattr(
        _verbs, "find_target", lambda name: replace(honest, lower=lambda graph, path: honest.lower(other, path))
    )
    path = tmp_path / f"model{honest.suffix}"
    path.write_bytes(b"older")
    with pytest.raises(PenjingError, match=f"{where}: output 'output' differs"):
        lower(graph, target, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"older"


class Named:
    """A session of which every output is computed by a function."""

    def __init__(self, function):
        self.function = function

    def run(self, inputs):
        return [self.function(torch.from_numpy(inputs["x"])).numpy()]


@pytest.fixture(scope="module")
def summed(tmp_path_factory):
    graph = graph_of(lambda x: x.sum(1), torch.randn(3, 5))
    return graph, lower(graph, path=tmp_path_factory.mktemp("summed") / "model.onnx")


class Apart(nn.Module):
    """Two branches whose batches have nothing to do with one another."""

    def forward(self, a, b):
        return (a * 2).relu() + 1, (b * 3).relu() + 1


def test_batches_that_may_differ_have_names_of_their_own_in_an_onnx_file(tmp_path):
    artifact = lower(capture(Apart(), (torch.randn(2, 4), torch.randn(2, 4))), path=tmp_path / "model.onnx")
    named = [value.type.tensor_type.shape.dim[0].dim_param for value in onnx.load(artifact.path).graph.input]
    assert named == ["batch", "b_0"]
    one, other = session(artifact)(torch.ones(3, 4), torch.ones(5, 4))
    assert one.shape == (3, 4) and other.shape == (5, 4)


def test_another_shape_is_told_with_both_shapes(summed):
    with pytest.raises(PenjingError, match=r"output 'output' has the shape \(6,\), not \(3,\)"):
        check_other_sizes(*summed, Named(lambda x: x.sum(1).repeat(len(x) - 1) if len(x) > 2 else x.sum(1)))


def test_what_fails_at_another_size_is_told_with_the_reason(summed):
    def fail(x):
        if x.shape[1] != 5:
            raise PenjingError("no such length")
        return x.sum(1)

    with pytest.raises(
        PenjingError, match=r"axis 1 of input 'x' has size 4 instead of 5: there it fails \(no such length\)"
    ):
        check_other_sizes(*summed, Named(fail))


def test_values_that_are_wrong_at_every_size_are_refused_too(summed):
    with pytest.raises(PenjingError, match="output 'output' differs by"):
        check_other_sizes(*summed, Named(lambda x: 1.01 * x.sum(1)))


def test_a_size_at_which_the_graph_itself_only_works_as_it_was_is_told(summed):
    _, artifact = summed
    fixed = capture(nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)), torch.randn(3, 5))
    (given,) = fixed.signature.leaves
    fixed.signature = replace(fixed.signature, leaves=(replace(given, name="x", dynamic=frozenset((0, 1)), sizes=()),))
    with pytest.warns(
        UserWarning, match=r"no other size was found at which it works: axis 1 of input 'x' \(as size 5\)"
    ):
        check_other_sizes(fixed, artifact, Named(lambda x: fixed.program(x)[0].detach()))


def test_all_sizes_that_are_tried_differ(summed):
    seen = []
    check_other_sizes(*summed, Named(lambda x: seen.append(tuple(x.shape)) or x.sum(1)))
    (shape,) = seen
    assert len({*shape, 2, 5}) == 4
