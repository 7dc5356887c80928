"""What is special about OpenVINO: the pair of files, what it executes in integers, models compiled for each shape."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from penjing import zoo
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantization import quantize
from penjing.targets import integer_macs, lower, open_artifact, profile, run

pytest.importorskip("openvino")

from penjing.targets.openvino import _session


class Blocks(nn.Module):
    """Linear bottlenecks with a gate, a shuffle of channels, a join and a head, as in networks for mobile devices."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.wide, self.deep = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.less, self.more = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.thin = nn.Conv2d(32, 16, 1)
        self.left, self.right = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.joined, self.head = nn.Conv2d(32, 16, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = F.relu6(self.stem(x))
        y = F.hardswish(self.deep(F.relu6(self.wide(x))))
        gate = F.hardsigmoid(self.more(F.relu(self.less(y.mean((2, 3), keepdim=True)))))
        x = x + self.thin(y * gate)
        x = torch.cat([self.left(x), F.relu(self.right(x))], 1)
        n, c, h, w = x.shape
        x = self.joined(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)).relu()
        return self.head(x.mean((2, 3)))


def mobile():
    return Blocks().eval(), torch.randn(2, 3, 32, 32)


def residual():
    return zoo.build("resnet20").eval(), torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize("network", [mobile, residual])
def test_no_product_of_a_quantised_network_is_left_in_float(network, tmp_path):
    torch.manual_seed(0)
    graph = capture(*network())
    small = quantize(graph, [torch.randn(8, *graph.inputs[0].shape[1:])], corrections=(), target="openvino")
    artifact = lower(small, "openvino", tmp_path / "model.xml")
    rows = [row for row in profile(artifact) if row.macs]
    assert rows and [row for row in rows if not row.integer or row.module is None] == []
    assert integer_macs(artifact, graph.cost()) == pytest.approx(1)
    multiplying = {row.module for row in graph.cost().rows if row.macs}
    assert {row.module for row in rows} == multiplying


def test_a_product_of_two_activations_stays_in_float_and_its_layers_do_not(tmp_path):
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.out = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(8, 4)

        def forward(self, x):
            return self.out(self.query(x) @ self.key(x).transpose(1, 2))

    torch.manual_seed(0)
    graph = capture(Scores().eval(), torch.randn(2, 8, 16))
    small = quantize(graph, [torch.randn(8, 8, 16)], corrections=(), target="openvino")
    rows = [row for row in profile(lower(small, "openvino", tmp_path / "model.xml")) if row.macs]
    assert {row.node for row in rows if row.integer} == {"linear", "linear_1", "linear_2"}
    assert {row.node for row in rows if not row.integer} == {"matmul"}


@pytest.mark.parametrize("ceil", [True, False])
@pytest.mark.parametrize("counts", [True, False])
def test_zeros_around_a_pool_of_integers_stand_for_zero(counts, ceil, tmp_path):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.second(F.avg_pool2d(self.first(x), 3, 2, (1, 0), ceil, counts))

    torch.manual_seed(0)
    graph = capture(Pooled().eval(), torch.randn(2, 3, 12, 12))
    small = quantize(graph, [torch.randn(16, 3, 12, 12)], corrections=(), target="openvino")
    artifact = lower(small, "openvino", tmp_path / "model.xml")
    x = torch.randn(1, 3, 12, 12)
    expected = small(x).detach()
    assert float((run(artifact, x) - expected).abs().max()) <= 2.5 * float((expected.amax() - expected.amin()) / 255)
    assert integer_macs(artifact, small.cost()) == 1


def test_weights_are_stored_in_their_own_bits(tmp_path):
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)).eval(), torch.randn(2, 256))
    small = quantize(graph, [torch.randn(8, 256)], corrections=(), target="openvino")
    whole, eighth = (lower(one, "openvino", tmp_path / f"{n}.xml") for n, one in enumerate((graph, small)))
    assert whole.files[1].stat().st_size > 2 * 256 * 256 * 4  # float32, not float16
    assert eighth.files[1].stat().st_size < 2 * 256 * 256 * 1.1


def test_each_of_the_first_shapes_gets_a_model_of_its_own_and_all_later_ones_share_one(tmp_path):
    torch.manual_seed(0)
    graph = capture(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8), dynamic={"input": (0, 2, 3)}
    )
    artifact = lower(graph, "openvino", tmp_path / "model.xml")
    session = _session.CpuSession(artifact, 1)
    for size in range(5, 5 + 2 * _session.STATIC_SHAPES):
        x = torch.randn(2, 3, size, size + 1)
        (found,) = session.run({artifact.inputs[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), graph(x), rtol=1e-4, atol=1e-5)
    assert len(session._requests) == _session.STATIC_SHAPES + 1 and None in session._requests


def test_outputs_are_the_callers_own(tmp_path):
    artifact = lower(capture(nn.ReLU(), torch.randn(2, 4)), "openvino", tmp_path / "model.xml")
    first = run(artifact, np.ones((1, 4), np.float32))
    run(artifact, np.zeros((1, 4), np.float32))
    assert first.tolist() == [[1] * 4]


def test_files_are_of_openvinos_own_form_and_whole(tmp_path):
    artifact = lower(capture(nn.Linear(4, 3), torch.randn(2, 4)), "openvino", tmp_path / "model.xml")
    onnx = lower(capture(nn.Linear(4, 3), torch.randn(2, 4)), "onnxruntime", tmp_path / "other.onnx")
    content = artifact.path.read_bytes()
    artifact.path.write_bytes(onnx.path.read_bytes())  # OpenVINO reads ONNX files too, whatever their name
    with pytest.raises(PenjingError, match=r"can't load .*model.xml: it isn't an .xml file of OpenVINO"):
        open_artifact(artifact.path, "openvino")
    artifact.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(PenjingError, match="can't load"):
        open_artifact(artifact.path, "openvino")
    artifact.path.write_bytes(content)
    artifact.files[1].write_bytes(artifact.files[1].read_bytes()[:7])
    with pytest.raises(PenjingError, match="can't load"):
        open_artifact(artifact.path, "openvino")


def test_files_of_another_name_are_refused(tmp_path):
    with pytest.raises(PenjingError, match=r"end in \.xml"):
        lower(capture(nn.Linear(4, 3), torch.randn(2, 4)), "openvino", tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_op_that_openvino_lacks_is_named_with_the_users_line(tmp_path):
    class Determinant(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    graph = capture(Determinant(), torch.randn(2, 4, 4))
    line = rf"at {re.escape(__file__)}:\d+ return torch.linalg.det\(x\)"
    with pytest.raises(
        PenjingError, match=rf"has no op 'Det', which the graph needs {line}. Write that line in other ops"
    ):
        lower(graph, "openvino", tmp_path / "model.xml")
    assert not list(tmp_path.iterdir())
