"""Zeros that masks hold are exact zeros in the lowered file."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from penjing.data import Data
from penjing.graph import capture
from penjing.pruning import prune
from penjing.quantization import quantize
from penjing.targets import lower
from penjing.tasks import Classification


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.head = nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 4)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        return self.head(self.depthwise(torch.relu(self.norm(self.conv(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def sparse():
    torch.manual_seed(0)
    return prune(capture(Net().eval(), torch.randn(2, 3, 8, 8)), 0.7, granularity="element")


def stored(path):
    """The file's constants of two axes or more, as they lie in the graph's weights."""
    return {value.name: numpy_helper.to_array(value) for value in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("integer", [False, True])
def test_masked_weights_are_zero_in_the_onnx_file_and_the_others_are_not(integer, sparse, tmp_path):
    graph = sparse
    if integer:
        batches = [(torch.randn(8, 3, 8, 8), torch.zeros(8, dtype=torch.long))]
        graph = quantize(sparse, Data(None, batches, None, Classification(4)))
    values = stored(lower(graph, path=tmp_path / "model.onnx").path)
    for name, mask in sparse.masks.items():
        found = [array for array in values.values() if array.shape == tuple(mask.shape)]
        (weight,) = found
        assert weight.dtype == (np.int8 if integer else np.float32)
        assert not weight[~mask.numpy()].any()
        if not integer:
            assert weight[mask.numpy()].all(), name


def test_they_are_zero_in_a_pytorch_file(sparse, tmp_path):
    lower(sparse, "torch", tmp_path / "model.pt2")
    state = torch.export.load(tmp_path / "model.pt2").state_dict
    for name, mask in sparse.masks.items():
        assert torch.equal(state[name] != 0, mask)
