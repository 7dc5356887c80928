"""Which convolutions one could stand for, and what it sees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.merging import runs
from penjing.merging.runs import run_of


class Inverted(nn.Module):
    """An inverted residual block (Sandler et al., 2018)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.project = nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu6(self.norm(self.expand(x)))
        return x + self.project(nn.functional.relu6(self.depthwise(y)))


def captured(module: nn.Module, channels: int = 4, size: int = 12) -> pj.Graph:
    torch.manual_seed(0)
    return pj.capture(module.eval(), torch.randn(2, channels, size, size))


def test_an_inverted_block_may_become_one_convolution():
    (run,) = runs(captured(Inverted(8, 48), 8))
    assert run.layers == ("expand", "depthwise", "project") and run.path == "project"
    assert (run.kernel, run.padding, run.channels, run.kernels()) == ((3, 3), (1, 1), (8, 8), [(3, 3)])
    assert run.macs_of((3, 3)) < run.macs


def test_two_convolutions_of_3_may_become_one_of_3_and_not_one_of_5_which_multiplies_more_often():
    layers = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
    (run,) = runs(captured(nn.Sequential(*layers)))
    assert run.kernel == (5, 5) and run.kernels() == [(3, 3)] and run.padding_of((3, 3)) == (1, 1)


def test_a_long_row_makes_several_runs():
    layers = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(5)]
    found = runs(captured(nn.Sequential(*layers)))
    assert [one.layers for one in found] == [("0", "1"), ("2", "3")]
    assert [one.layers for one in runs(captured(nn.Sequential(*layers[:3])))] == [("0", "1", "2")]


class Read(nn.Module):
    """Two convolutions, and something that stands in the way of a run."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        gaps = {"dilated": 2}.get(kind, 1)
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1, dilation=gaps), nn.Conv2d(4, 4, 3, padding=1)
        if kind == "shared":
            self.b = self.a

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.a(x))
        if self.kind == "pooled":
            y = nn.functional.max_pool2d(y, 2)
        z = self.b(y)
        return z + y if self.kind == "read twice" else z


@pytest.mark.parametrize("kind", ["dilated", "shared", "pooled", "read twice"])
def test_what_is_no_run(kind):
    assert runs(captured(Read(kind))) == []
    assert len(runs(captured(Read("plain")))) == 1


def test_patterns_leave_runs_out():
    graph = captured(Read("plain"))
    assert runs(graph, exclude=["a"]) == [] and runs(graph, include=["b"]) == []
    assert len(runs(graph, include=["a", "b"])) == 1
    with pytest.raises(PenjingError, match="module pattern"):
        runs(graph, exclude=["c"])


def test_a_run_is_found_again_by_its_layers():
    graph = captured(Read("plain"))
    assert run_of(graph, ["a", "b"]) == runs(graph)[0]
    assert run_of(graph, ["b", "a"]) is None and run_of(graph, ["a", "nothing"]) is None


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 2), st.integers(0, 2)), min_size=2, max_size=3))
def test_one_convolution_sees_what_the_run_sees(sizes):
    layers = [nn.Conv2d(2, 2, kernel, stride, padding, bias=False) for kernel, stride, padding in sizes]
    whole = nn.Sequential(*layers)
    try:
        graph = captured(whole, 2, 24)
    except RuntimeError:
        return  # nothing is left of the image
    (run,) = runs(graph)
    x = torch.randn(1, 2, 24, 24, dtype=torch.float64)
    one = nn.Conv2d(2, 2, run.kernel, run.stride, run.padding, bias=False)
    assert one(x.float()).shape == whole(x.float()).shape
    # The weight of the one convolution is the run's answer to single ones, here found by differentiating in the middle.
    middle = tuple(size // 2 for size in whole(x.float()).shape[2:])
    slope = torch.autograd.functional.jacobian(lambda x: whole.double()(x)[0, :, middle[0], middle[1]], x)
    seen = slope.abs().sum((0, 1, 2)).nonzero()
    if len(seen):
        low, high = seen.min(0).values.tolist(), seen.max(0).values.tolist()
        start = [at * step - pad for at, step, pad in zip(middle, run.stride, run.padding, strict=True)]
        assert all(a >= s for a, s in zip(low, start, strict=True))
        assert all(b < s + k for b, s, k in zip(high, start, run.kernel, strict=True))
