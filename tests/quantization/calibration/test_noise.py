"""What rounding leaves of what varies: parts of very different ranges are brought to one, or the layer is named."""

import copy
import functools
import math
import re
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penjing as pj
from penjing.graph import fold_batch_norms
from penjing.graph.taps import Execution
from penjing.quantization.calibration.noise import Noise
from penjing.quantization.corrections import equalize_inputs
from penjing.report import words

RANGES = torch.tensor([1e4, 1.0, 0.01, 100.0])


class Table(nn.Module):
    """Columns of very different ranges, which the first layer's weights even out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 16), nn.Linear(16, 3)
        self.first.weight.data /= RANGES

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.first(x)))


class Bands(nn.Module):
    """Images whose channels have very different ranges, filtered one by one first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Conv2d(4, 3, 1)
        self.head.weight.data /= RANGES.view(1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x))


class Joined(nn.Module):
    """Two branches of which one is a thousand times as large, side by side before a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small, self.head = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3), nn.Conv2d(16, 3, 1)
        self.large.weight.data *= 1e3
        self.head.weight.data[:, :8] /= 1e3

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([F.relu(self.large(x)), F.relu(self.small(x))], 1))


class JoinedInputs(nn.Module):
    """Two inputs of very different ranges in one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.first.weight.data[:, 2:] /= 1e4

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.first(torch.cat([x[:, :2], x[:, 2:] * 1e4], 1))))


class Dwarfed(nn.Module):
    """One channel dwarfs the others behind a layer without norm, and the next layer makes up for it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.first.weight.data[0] *= 1e4
        self.head.weight.data[:, 0] /= 1e4

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.first(x)))


class Bounded(Dwarfed):
    """The same, with a clip between them that no scale passes."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.hardtanh(self.first(x), -1.0, 1e5))


class Offset(Table):
    """Reads values that differ by little beside what all of them have."""

    def __init__(self) -> None:
        super().__init__()
        self.first.weight.data *= RANGES


class Ordinary(nn.Module):
    """Nothing is wrong with it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.first(x))).mean((2, 3)))


def _rows() -> Tensor:
    return torch.rand(32, 4)


def _images() -> Tensor:
    return torch.randn(16, 4, 6, 6)


KINDS: dict[str, tuple[type[nn.Module], Callable[[], Tensor]]] = {
    "columns of a table": (Table, lambda: _rows() * RANGES),
    "features of tokens": (Table, lambda: torch.rand(16, 3, 4) * RANGES),
    "bands of an image": (Bands, lambda: _images() * RANGES.view(1, 4, 1, 1)),
    "parts of a concatenation": (Joined, _images),
    "inputs side by side": (JoinedInputs, _rows),
    "one channel over all others": (Dwarfed, _rows),
}


@functools.cache
def _captured(make: type[nn.Module], batch: Callable[[], Tensor]) -> pj.Graph:
    torch.manual_seed(0)
    return pj.capture(make().eval(), batch())


def _graph(make: type[nn.Module], batch: Callable[[], Tensor]) -> pj.Graph:
    graph = copy.deepcopy(_captured(make, batch))
    torch.manual_seed(1)  # what a test draws doesn't depend on which one captures first
    return graph


def _decibels(wanted: Tensor, got: Tensor) -> float:
    """Returns by how much what varies over samples stands above the error."""
    return 20 * math.log10(float((wanted - wanted.mean(0)).norm() / (got - wanted).norm()))


@pytest.mark.parametrize(
    "asked", [{}, {"corrections": ()}, {"grain": "tensor"}], ids=["default", "plain", "per tensor"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_very_different_ranges_keep_what_varies_in_them(kind, asked):
    make, batch = KINDS[kind]
    graph = _graph(make, batch)
    before = {name: tensor.clone() for name, tensor in graph.tensors().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = pj.quantize(graph, [batch() for _ in range(2)], **asked)
    x = batch()
    with torch.no_grad():
        assert _decibels(graph(x), small(x)) > 20
    assert any("inputs equalised" in words(step.to_json()) for step in small.plan)
    assert all(torch.equal(tensor, before[name]) for name, tensor in graph.tensors().items())


def test_ranges_that_are_found_at_run_time_have_one_scale_too():
    make, batch = KINDS["columns of a table"]
    graph, x = _graph(make, batch), batch()
    small = pj.quantize(graph, [batch()], activations="dynamic")
    with torch.no_grad():
        assert _decibels(graph(x), small(x)) > 20


def test_no_layer_falls_back_to_floating_point_for_it():
    for kind, (make, batch) in KINDS.items():
        small = pj.quantize(_graph(make, batch), [batch()], placement="integer")
        assert {step.after for step in small.plan} == {"int8"}, kind


@pytest.mark.parametrize("kind", KINDS)
def test_equalised_inputs_leave_the_float_function_as_it_was(kind):
    make, batch = KINDS[kind]
    graph, x = fold_batch_norms(_graph(make, batch)), batch()
    wanted = graph(x)
    layers = [
        node for node in graph.program.graph.nodes if node.meta.get("module") in ("first", "head", "large", "small")
    ]
    channels = {
        node.name: graph.tensor(str(node.args[1].target)).shape[1]
        for node in layers
        if "conv" in node.name or "linear" in node.name
    }
    scales = {
        name: 2.0 ** torch.arange(4 if "bands" in kind and name == "conv2d" else n) for name, n in channels.items()
    }
    done = equalize_inputs(graph, scales, {node.name for node in layers}, ())
    assert done
    assert torch.allclose(graph(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "batch", "options", "place"),
    [
        (Bounded, _rows, {}, "head"),
        (Offset, lambda: 100 + _rows(), {}, "first"),  # what varies is small beside an offset that all values have
        (Table, lambda: _rows() * RANGES, {"weights": "int4"}, "first"),  # few bits are left as they were asked for
    ],
    ids=["no scale passes", "an offset", "few bits"],
)
def test_what_cannot_be_mended_is_named_in_a_warning_and_in_the_plan(make, batch, options, place):
    graph = _graph(make, batch)
    with pytest.warns(UserWarning, match=rf"Rounding leaves little of the signal in .*'{place}' .*exclude="):
        small = pj.quantize(graph, [batch()], **options)
    (step,) = [step for step in small.plan if step.place.path == place]
    assert re.search(r"signal \d+\.\d dB (above|below) the noise", words(step.to_json()))


def test_what_lies_below_the_noise_is_said_so():
    for level, said in ((1.5, "signal 1.5 dB above the noise"), (-1.5, "signal 1.5 dB below the noise")):
        step = {"technique": "quantize", "setting": {"weights": "int8"}, "found": {"signal_to_noise_db": level}}
        assert said in words(step)


def test_an_iterator_that_cannot_be_read_again_is_warned_of():
    make, batch = KINDS["columns of a table"]
    with pytest.warns(UserWarning, match="Rounding leaves little of the signal in 'first'"):
        pj.quantize(_graph(make, batch), iter([batch()]))


@pytest.mark.parametrize("corrections", ["auto", ()])
def test_looking_at_the_noise_changes_nothing_where_there_is_signal(corrections, monkeypatch):
    graph = _graph(Ordinary, _images)
    data = [_images() for _ in range(2)]
    looked = pj.quantize(graph, data, corrections=corrections)
    monkeypatch.setattr(Noise, "worst", 0.0)
    blind = pj.quantize(graph, data, corrections=corrections)
    assert looked.plan == blind.plan and looked.program.code == blind.program.code
    assert all(torch.equal(tensor, blind.tensors()[name]) for name, tensor in looked.tensors().items())


def test_few_samples_more_than_the_corrections_ran_are_run_to_look_at_the_noise(monkeypatch):
    counted = []
    run = Execution.run

    def counting(self, *inputs, **how):
        counted.append(len(inputs[0]))
        return run(self, *inputs, **how)

    graph, data = _graph(Ordinary, _images), [_images() for _ in range(8)]
    monkeypatch.setattr(Execution, "run", counting)
    pj.quantize(graph, data)
    assert sum(counted) == 8 * 16 + 2 * 40  # calibration, and both networks on the corrections' samples
    counted.clear()
    pj.quantize(graph, data, corrections=())
    assert sum(counted) == 8 * 16 + 2 * 8  # calibration, and both networks on as few samples as tell
