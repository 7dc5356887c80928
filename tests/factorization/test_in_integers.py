"""Chains of layers where the runtime executes them in integers: from one link to the next nothing is in floating point."""

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import penjing as pj


class Network(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.third, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3))
        return self.head(torch.relu(self.third(y)))


@pytest.mark.parametrize("form", ["chain", "unfold"])
@pytest.mark.parametrize("method", ["tucker2", "svd", "spatial", "cp", "tt"])
def test_a_chain_is_executed_in_integers_from_end_to_end(method, form, tmp_path):
    if (method, form) == ("cp", "unfold"):
        pytest.skip("the depthwise links of cp can't be unfolded")
    torch.manual_seed(0)
    graph = pj.capture(Network().eval(), torch.randn(2, 32, 16, 16))
    small = pj.factorize(graph, method=method, ranks="ratio:0.5", form=form, metric="weights", round_to=8)
    made = pj.quantize(small, [torch.randn(16, 32, 16, 16)])
    pj.lower(made, path=tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "executed.onnx"), 3
    onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    ops = [node.op_type for node in onnx.load(tmp_path / "executed.onnx").graph.node]
    multiplied = sum(row.macs > 0 for row in small.cost().rows)
    assert multiplied > 4, "some layers are chains"
    assert sum(op in ("QLinearConv", "QGemm", "QLinearMatMul") for op in ops) == multiplied
    assert ops.count("QuantizeLinear") == 1, "the input alone is rounded"
    assert ops.count("DequantizeLinear") <= 1, "the output alone may be turned back"
