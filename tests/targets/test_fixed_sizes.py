"""Targets whose files have fixed sizes: they get a graph with one sample, and refuse other free axes."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantization import quantize
from penjing.targets import _verbs, check_parity, find_target, lower, run
from penjing.targets._records import Artifact, TensorSpec


@pytest.fixture
def fixed(monkeypatch):
    """A target with fixed sizes: its file holds nothing, and its session calls the graph with one sample."""
    graphs = {}

    class One:
        def __init__(self, artifact, threads):
            self.graph = graphs[artifact.outputs]

        def run(self, inputs):
            values = [torch.from_numpy(value) for value in inputs.values()]
            assert all(len(value) == 1 for value in values)
            return [value.detach().numpy() for value in self.graph.program(*values)]

    def written(graph, path):
        path.write_bytes(b"a model")
        inputs = tuple(TensorSpec(i.name, (1, *i.shape[1:]), "float32", (1, *i.shape[1:])) for i in graph.inputs)
        outputs = tuple(f"output_{len(graphs)}_{place}" for place in range(graph.out_spec.num_leaves))
        graphs[outputs] = graph
        return Artifact("fixed", path, (path,), inputs, outputs)

    target = replace(find_target("onnxruntime"), name="fixed", lower=written, session=One, fixed_sizes=True)
    monkeypatch.setattr(_verbs, "find_target", lambda name: target)


def test_any_number_of_samples_is_run_one_by_one(fixed, plain, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()).eval()
    graph = capture(model, torch.randn(2, 3, 5, 5))
    artifact = lower(graph, "fixed", tmp_path / "model.fixed")
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(run(artifact, x), model(x))
    assert artifact.batch == 1 and check_parity(artifact, graph).max_abs_error < 1e-6


def test_inputs_of_their_own_numbers_of_samples_get_the_same_number(fixed, tmp_path):
    class Beside(nn.Module):
        def forward(self, x, y):
            return x.sum(1), y.mean(1)

    graph = capture(Beside(), (torch.randn(2, 4), torch.randn(2, 3)))
    artifact = lower(graph, "fixed", tmp_path / "model.fixed")
    x, y = torch.randn(3, 4), torch.randn(3, 3)
    torch.testing.assert_close(run(artifact, x, y), (x.sum(1), y.mean(1)))


def test_what_mixes_samples_is_refused(fixed, tmp_path):
    class Centred(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    with pytest.raises(PenjingError, match="doesn't compute what the graph computes where axis 0"):
        lower(capture(Centred(), torch.randn(2, 4)), "fixed", tmp_path / "model.fixed")


def test_another_free_axis_is_refused_before_anything_is_written(fixed, tmp_path):
    graph = capture(nn.Linear(4, 2), torch.randn(2, 7, 4), dynamic={"input": (0, 1)})
    with pytest.raises(PenjingError, match="Axis 1 of input 'input_1' is free, and files for 'fixed' have fixed sizes"):
        lower(graph, "fixed", tmp_path / "model.fixed")
    assert not list(tmp_path.iterdir())


def test_a_rounded_file_that_is_wrong_at_all_sizes_is_refused(fixed, tmp_path, monkeypatch):
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)).eval(), torch.randn(2, 3, 9, 9))
    small = quantize(graph, [torch.randn(8, 3, 9, 9)], corrections=())
    session = _verbs.find_target("fixed").session
    lower(small, "fixed", tmp_path / "model.fixed")
    run_right = session.run
    monkeypatch.setattr(session, "run", lambda self, inputs: [value[:, ::-1] for value in run_right(self, inputs)])
    with pytest.raises(PenjingError, match=r"doesn't compute what the graph computes.* of its norm"):
        lower(small, "fixed", tmp_path / "model.fixed")
