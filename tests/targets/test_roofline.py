"""How near layers come to what a machine allows, with made-up peaks and times."""

import pytest
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.targets import ExecutedNode, Peaks, far_from_limit, lower, profile, roofline

PEAKS = Peaks("made-up 1", 1, float_macs=1e6, integer_macs=4e6, bytes=1e6)


@pytest.fixture(scope="module")
def cost():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10))
    return capture(model.eval(), torch.randn(2, 4, 4, 4)).cost()


def node(module, name, us, integer=False, op="Conv"):
    return ExecutedNode(name, op, module, name, us, integer, 0)


CONV = 8 * 16 * 4 * 9  # multiply-accumulates
CONV_BYTES = 4 * (4 * 16 + 8 * 16 + 8 * 36 + 8)
LINEAR = 8 * 16 * 10
LINEAR_BYTES = 4 * (8 * 16 + 10 + LINEAR + 10)


def test_the_longer_of_multiplying_and_of_moving_is_the_limit(cost):
    rows = roofline(cost, [node("0", "conv2d", 20_000.0), node("3", "linear", 5284.0, op="Gemm")], PEAKS)
    conv, linear = rows["0"], rows["3"]
    assert (conv.macs, conv.bytes, conv.bound) == (CONV, CONV_BYTES, "compute")
    assert (linear.macs, linear.bytes, linear.bound) == (LINEAR, LINEAR_BYTES, "memory")
    assert conv.limit_ms == pytest.approx(CONV / 1e3) and linear.limit_ms == pytest.approx(LINEAR_BYTES / 1e3)
    assert conv.reached == pytest.approx(CONV / 20_000) and linear.reached == pytest.approx(LINEAR_BYTES / 5284)
    assert conv.intensity == pytest.approx(CONV / CONV_BYTES) and conv.kernels == ("Conv",)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_batch_multiplies_macs_and_values_but_not_weights(cost, batch):
    rows = roofline(cost, [], PEAKS, batch)
    assert rows["0"].macs == batch * CONV
    assert rows["3"].bytes == batch * 4 * (8 * 16 + 10) + 4 * (LINEAR + 10)


def test_the_peak_of_integers_holds_for_kernels_that_multiply_integers(cost):
    rows = roofline(cost, [node("0", "conv2d", 20_000.0, integer=True)], PEAKS)
    assert rows["0"].integer and rows["0"].limit_ms == pytest.approx(max(CONV / 4e3, CONV_BYTES / 1e3))


def test_a_layer_without_a_kernel_of_its_own_has_no_share(cost):
    rows = roofline(cost, [node("3", "linear", 100.0)], PEAKS)
    assert rows["0"].latency_ms is None and rows["0"].reached is None and rows["0"].kernels == ()
    assert far_from_limit(rows) == 0.0


def test_the_share_of_the_time_far_from_the_limit_is_that_of_layers_below_it(cost):
    conv, linear = node("0", "conv2d", 4.0 * CONV), node("3", "linear", 2.0 * LINEAR_BYTES)
    rows = roofline(cost, [conv, linear], PEAKS)
    assert rows["0"].reached == pytest.approx(0.25) and rows["3"].reached == pytest.approx(0.5)
    assert far_from_limit(rows) == pytest.approx(4 * CONV / (4 * CONV + 2 * LINEAR_BYTES))
    assert far_from_limit(rows, 0.6) == 1.0 and far_from_limit(rows, 0.2) == far_from_limit({}) == 0.0


class Spectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        return torch.fft.rfft(self.linear(x)).abs()


def test_what_an_op_of_unknown_macs_could_reach_is_not_known():
    cost = capture(Spectral().eval(), torch.randn(2, 6)).cost()
    rows = roofline(cost, [node("fft_rfft", "fft_rfft", 9.0)], PEAKS)
    assert rows["fft_rfft"].latency_ms is not None and rows["fft_rfft"].reached is None
    assert not rows["fft_rfft"].counted


class Attention(nn.Module):
    """Two products and a softmax between them, in one module."""

    def forward(self, x):
        return torch.softmax(x @ x.transpose(1, 2), -1) @ x


def test_ops_with_a_kernel_of_their_own_count_among_the_bytes_of_their_module():
    cost = capture(nn.Sequential(Attention()).eval(), torch.randn(2, 5, 3)).cost()
    alone = roofline(cost, [], PEAKS)["0"].bytes
    assert roofline(cost, [node("0", "softmax", 1.0, op="Softmax")], PEAKS)["0"].bytes == alone + 2 * 4 * 25


def test_a_row_is_plain_json(cost):
    row = roofline(cost, [node("0", "conv2d", 1.0)], PEAKS)["0"].to_dict()
    assert row["shape"] == [1, 8, 4, 4] and row["macs_per_byte"] == pytest.approx(CONV / CONV_BYTES)
    assert {"op", "kernels", "latency_ms", "limit_ms", "bound", "reached", "bytes", "macs", "integer"} <= row.keys()


def test_without_peaks_there_is_no_roofline(cost):
    with pytest.raises(PenjingError, match="peaks"):
        roofline(cost, [], None)


def test_what_a_runtime_executed_stands_under_the_roofline(tmp_path, quantised):
    artifact = lower(quantised, path=tmp_path / "m.onnx")
    rows = roofline(quantised.cost(), profile(artifact), PEAKS)
    assert all(rows[name].integer and rows[name].reached for name in ("stem", "body", "side", "head"))
    assert rows["stem"].bytes == 3 * 1024 + 16 * 1024 + 16 * 27 + 4 * 16
