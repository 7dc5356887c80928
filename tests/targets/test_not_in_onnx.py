"""Ops that the exporter doesn't know are written in others, or the error names the user's line and a way out."""

import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.targets import lower, run


class Model(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


WRITTEN = {
    "distances": lambda x: torch.cdist(x[:, :4], x[:, 4:]),
    "sums of distances": lambda x: torch.cdist(x, x[:, :2], p=1.0),
    "the third smallest": lambda x: tuple(x.kthvalue(3, 1)),
    "the third smallest, kept": lambda x: tuple(x.kthvalue(3, -1, keepdim=True)),
    "medians of an even number": lambda x: tuple(x.median(1)),
    "medians of an odd number": lambda x: x[:, :, :5].median(2).values,
    "places among shared values": lambda x: torch.searchsorted(torch.tensor([-1.0, 0.0, 0.5]), x, right=True),
    "places among values of each": lambda x: torch.searchsorted(x[:, 0].sort(-1).values, x[:, 1].contiguous()),
}


def test_ops_that_the_exporter_lacks_are_written_in_others(tmp_path):
    model = Model(lambda x: {name: function(x) for name, function in WRITTEN.items()})
    artifact = lower(capture(model, torch.randn(2, 8, 6)), path=tmp_path / "model.onnx")
    x = torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(1))
    actual = run(artifact, x)
    for name, function in WRITTEN.items():
        for have, want in zip(_flat(actual[name]), _flat(function(x)), strict=True):
            torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-5, msg=name)


def _flat(value):
    return [value] if isinstance(value, torch.Tensor) else list(value)


UNKNOWN = {
    "linalg_inv": lambda x: torch.linalg.inv(x @ x.mT + torch.eye(4)),
    "erfinv": lambda x: torch.erfinv(x.tanh()),
    "nanmedian": lambda x: x.nanmedian(1).values,
}


@pytest.mark.parametrize("op", UNKNOWN)
def test_an_op_that_can_not_be_written_is_named_with_the_users_line_and_a_way_out(op, tmp_path):
    graph = capture(Model(UNKNOWN[op]), torch.randn(2, 4, 4))
    with pytest.raises(PenjingError, match=rf"no op for 'aten.{op}\..*' at .*test_not_in_onnx\.py:\d+") as raised:
        lower(graph, path=tmp_path / "model.onnx")
    assert "target='torch'" in str(raised.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_the_runtime_has_no_kernels_for_is_refused_with_the_dtype_and_what_to_call(dtype, tmp_path):
    layer = nn.Conv2d(3, 4, 3).to(dtype)
    graph = capture(Model(lambda x: layer(x.to(dtype)).float()), torch.randn(2, 3, 8, 8))
    with pytest.raises(PenjingError, match=rf"computes in {str(dtype)[6:]}.*model\.float\(\)"):
        lower(graph, path=tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["onnxruntime", "torch"])
def test_inputs_that_no_session_can_take_are_refused_at_once(target, tmp_path):
    graph = capture(nn.Linear(3, 2).to(torch.bfloat16), torch.randn(2, 3, dtype=torch.bfloat16))
    with pytest.raises(PenjingError, match=r"input 'input_1' is bfloat16.*model\.float\(\)"):
        lower(graph, target, tmp_path / "model")
