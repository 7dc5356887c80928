import subprocess
import sys

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.models import load_model
from penjing.targets import lower, open_artifact, targets


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return pj.prune(pj.capture(model, torch.randn(2, 3, 8, 8), dynamic={"input": (0, 2, 3)}), amount=0.5)


@pytest.fixture(scope="module")
def path(graph, tmp_path_factory):
    return lower(graph, "torch", tmp_path_factory.mktemp("torch") / "m.pt2").path


def test_pytorch_alone_reads_runs_and_trains_it_at_any_size(graph, path, tmp_path):
    x = torch.randn(1, 3, 9, 7)
    torch.save((x, graph(x).detach()), tmp_path / "pair.pt")
    code = """
import sys, torch
sys.modules["penjing"] = None
model = torch.export.load(sys.argv[1]).module()
x, y = torch.load(sys.argv[2])
torch.testing.assert_close(model(x), y)
model(x).square().sum().backward()
assert all(p.grad is not None for p in model.parameters())
print(sorted(model.state_dict()))
"""
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "pair.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(sorted(graph.state_dict()))


def test_it_is_a_model_that_can_be_captured_again_and_trained_on(graph, path):
    again = load_model(str(path)).graph()
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(again(x), graph(x))
    again.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in again.named_parameters() if n != "0.bias")
    assert pj.channels(again).groups


def test_quantised_weights_are_stored_as_integers(quantised, tmp_path):
    lower(quantised, "torch", tmp_path / "m.pt2")
    state = torch.export.load(tmp_path / "m.pt2").state_dict
    large = [tensor.dtype for tensor in state.values() if tensor.numel() > 100]
    assert large == [torch.int8] * 4


def test_it_is_read_only_when_asked_for_by_name(path):
    for read in (open_artifact, pj.load):
        with pytest.raises(PenjingError):
            read(path)
    with pytest.raises(PenjingError, match="as trusting as running code"):
        pj.load(path)
    assert "run code" in targets["torch"].summary
