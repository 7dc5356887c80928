"""What is said of calibration data that can't be observed: which batch it is, which input, and what to do."""

import copy

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.errors import PenjingError


class TwoInputs(nn.Module):
    """A layer for each input; their sum is the output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y)


class OwnBatch(nn.Module):
    """Writes its batch of 4 into a reshape, so that it can't be captured with another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).reshape(4, 3)


class BehindAFloatOp(nn.Module):
    """The input is read by an op that stays in floating point, so its own values aren't rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.cumsum(x, 1))


def _two() -> pj.Graph:
    torch.manual_seed(0)
    return pj.capture(TwoInputs().eval(), (torch.randn(2, 6), torch.randn(2, 4)))


def _pair(count: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 6), torch.randn(count, 4)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ((torch.randn(8, 6), torch.randn(8, 5)), r"^Calibration batch 2 doesn't fit\. Input 'y' has shape \(8, 5\)"),
        ((torch.randn(8, 6),), r"^Calibration batch 2 doesn't fit\. Missing input 'y'"),
        ({"x": torch.randn(8, 6)}, r"^Calibration batch 2 doesn't fit\. Missing input 'y'"),
        ("x", r"^Calibration batch 2: a batch is a tensor, a sequence .* not str"),
        ((torch.randn(0, 6), torch.randn(0, 4)), r"^Calibration batch 2 holds no sample: its input 'x'"),
        ((torch.randn(8, 6), torch.randn(8, 4).double()), r"^Calibration batch 2 .*'y' has dtype float64.*\(torch\.float32\)"),
        ((torch.randn(8, 6), torch.full((8, 4), torch.nan)), r"NaN or infinity, in the input 'y' of batch 2\.$"),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_used_is_named_with_its_input(batch, says):
    with pytest.raises(PenjingError, match=says):
        pj.quantize(_two(), [_pair(), batch])


def test_an_input_that_is_not_finite_is_blamed_though_only_a_float_op_reads_it():
    graph = pj.capture(BehindAFloatOp().eval(), torch.randn(2, 6))
    with pytest.raises(PenjingError, match=r"NaN or infinity, in the input 'x' of batch 3\.$"):
        pj.quantize(graph, [torch.randn(4, 6), torch.randn(4, 6), torch.full((4, 6), torch.inf)])


def test_a_smaller_last_batch_of_a_model_with_a_fixed_one_is_told_from_other_shapes():
    graph = pj.capture(OwnBatch().eval(), torch.randn(4, 6))
    with pytest.raises(PenjingError, match=r"^Calibration batch 2 .* takes batches of 4 alone: .* drop_last=True"):
        pj.quantize(graph, [torch.randn(4, 6), torch.randn(2, 6)])
    with pytest.raises(PenjingError) as other:
        pj.quantize(graph, [torch.randn(4, 7)])
    assert "drop_last" not in str(other.value)


def test_a_loader_that_fails_midway_is_named_with_its_error():
    def broken():
        yield _pair()
        raise OSError("the disk is gone")

    with pytest.raises(
        PenjingError, match=r"^The calibration data, asked for batch 2, raised OSError: the disk is gone"
    ):
        pj.quantize(_two(), broken())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    ("network", "shape"),
    [(nn.Linear(6, 3), (2, 6)), (nn.Conv1d(2, 3, 3), (2, 2, 8)), (nn.LSTM(6, 4, batch_first=True), (2, 5, 6))],
    ids=["linear", "convolution", "recurrent"],
)
def test_a_model_in_another_precision_is_told_to_call_float(network, shape, dtype):
    kind = getattr(torch, dtype)
    graph = pj.capture(nn.Sequential(copy.deepcopy(network)).to(kind).eval(), torch.randn(shape).to(kind))
    with pytest.raises(PenjingError, match=rf"computes in {dtype}, .* model\.float\(\)"):
        pj.quantize(graph, [torch.randn(shape).to(kind)])
