"""Activations that never change on the calibration data are no ground to choose a range from."""

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.quantization import ConstantActivations
from penjing.quantization.observers import observers


class Residual(nn.Module):
    """`late(x + early(x))`, added in no module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
        self.branch, self.late = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.act(self.stem(image))
        return self.late(x + self.branch(x)).mean((2, 3))


class Gained(nn.Module):
    """Multiplies by a parameter that is 1 everywhere, and begins with a state of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(12, 3)
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x) * self.gain
        return self.second(torch.cat([y, torch.zeros_like(y)], 1))


def _residual(**weights: float) -> pj.Graph:
    torch.manual_seed(0)
    network = Residual().eval()
    for name, value in weights.items():
        nn.init.constant_(network.get_submodule(name).weight, value)
        nn.init.constant_(network.get_submodule(name).bias, value)
    return pj.capture(network, torch.randn(2, 3, 8, 8))


def _batches(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 8, 8, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("observer", observers)
def test_every_observer_refuses_a_layer_whose_output_never_changes_and_names_it(observer):
    with pytest.raises(ConstantActivations, match=r"^The output of 'branch' is 0 everywhere .* the model's weights"):
        pj.quantize(_residual(branch=0.0), _batches(), observer=observer)


def test_the_layers_that_the_error_says_can_be_excluded():
    graph = _residual(branch=0.0)
    with pytest.raises(ConstantActivations, match=r'exclude=\["branch", "add"\]\.$'):
        pj.quantize(graph, _batches())
    small = pj.quantize(graph, _batches(), exclude=["branch", "add"])
    assert [record.place.path for record in small.plan] == ["stem", "late", "branch"]
    assert small.plan[-1].found["reason"] == "asked"


def test_a_dead_clip_goes_by_the_layer_in_front_of_it():
    with pytest.raises(ConstantActivations, match=r"'stem' is 0 .*exclude=\[\"stem\", \"branch\", \"add\""):
        pj.quantize(_residual(stem=-1.0), [batch.abs() for batch in _batches()])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_input_that_never_changes_is_named(value):
    batches = [torch.full((4, 3, 8, 8), value)] * 2
    with pytest.raises(
        ConstantActivations, match=rf"^The input 'image' is {value:g} everywhere .* check the data and how"
    ):
        pj.quantize(_residual(), batches)


@pytest.mark.parametrize("observer", observers)
def test_values_that_change_from_one_batch_to_the_next_alone_are_no_constants(observer):
    batches = [torch.full((4, 3, 8, 8), value) for value in (0.0, 1.0, 2.0)]
    assert pj.quantize(_residual(), batches, observer=observer).plan


def test_what_the_model_itself_keeps_constant_may_be():
    torch.manual_seed(0)
    graph = pj.capture(Gained().eval(), torch.randn(2, 6))
    small = pj.quantize(graph, [torch.randn(8, 6) for _ in range(3)])
    assert [record.place.path for record in small.plan] == ["first", "second"]


@pytest.mark.parametrize("activations", [None, "dynamic"])
def test_no_range_no_error(activations):
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    nn.init.zeros_(network[0].weight)
    nn.init.constant_(network[0].bias, -1.0)
    graph, batches = pj.capture(network, torch.randn(2, 6)), [torch.randn(8, 6)]
    with pytest.raises(ConstantActivations):
        pj.quantize(graph, batches)
    assert pj.quantize(graph, batches, activations=activations, corrections=()).plan


def test_a_clipped_input_is_not_taken_for_the_input():
    graph = pj.capture(nn.Sequential(nn.ReLU(), nn.Linear(6, 3)).eval(), torch.randn(2, 6))
    with pytest.raises(ConstantActivations, match=r"^The output of '0' is 0 everywhere"):
        pj.quantize(graph, [-torch.rand(8, 6)])


def test_an_op_in_no_module_is_excluded_by_its_name():
    with pytest.raises(PenjingError, match=r"Unknown module pattern 'ad'\. Did you mean 'add'"):
        pj.quantize(_residual(), _batches(), exclude=["ad"])
    small = pj.quantize(_residual(), _batches(), exclude=["add"])
    assert len(small.plan) == 3


class Masked(nn.Module):
    """A gate computed from a mask alone multiplies what is computed from x."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.gate, self.b = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)) * torch.relu(self.gate(mask)))


class Penalised(nn.Module):
    """An additive mask, made in floating point of a mask that is read by no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.b(self.a(x) + (1.0 - mask.float()) * -10.0)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
@pytest.mark.parametrize("observer", observers)
def test_a_constant_input_beside_one_that_varies_keeps_a_range_that_holds_its_value_and_zero(value, observer):
    torch.manual_seed(0)
    x, mask = torch.randn(16, 8), torch.full((16, 8), value)
    graph = pj.capture(Masked().eval(), (x, mask))
    with torch.no_grad():
        graph.tensor("gate.bias").add_(3.0)  # lets something through
    small = pj.quantize(graph, [(x, mask)], observer=observer, corrections=())
    wanted = graph(x, mask)
    assert (small(x, mask) - wanted).norm() < 0.1 * wanted.norm()
    (pair,) = [node for node in small.program.graph.nodes if node.args and getattr(node.args[0], "name", "") == "mask"]
    scale, zero, low, high = pair.args[1:5]
    assert (low - zero) * scale <= min(value, 0.0) + 1e-6 and (high - zero) * scale >= max(value, 0.0) - 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_a_mask_of_any_type_that_only_float_ops_read_may_be_constant(dtype):
    torch.manual_seed(0)
    x, mask = torch.randn(16, 8), torch.ones(16, 8).to(dtype)
    graph = pj.capture(Penalised().eval(), (x, mask))
    small = pj.quantize(graph, [(x, mask)])
    assert (small(x, mask) - graph(x, mask)).norm() < 0.1 * graph(x, mask).norm()


def test_what_is_computed_from_constant_inputs_alone_is_not_taken_for_a_dead_layer():
    torch.manual_seed(0)
    graph = pj.capture(Masked().eval(), (torch.randn(2, 8), torch.ones(2, 8)))
    with torch.no_grad():
        graph.tensor("gate.bias").fill_(-100.0)  # the gate is shut on this mask, and may be open on others
    assert len(pj.quantize(graph, [(torch.randn(16, 8), torch.ones(16, 8))], exclude=["b"]).plan) >= 2


def test_a_dead_layer_is_told_though_an_input_is_constant():
    torch.manual_seed(0)
    graph = pj.capture(Masked().eval(), (torch.randn(2, 8), torch.ones(2, 8)))
    with torch.no_grad():
        graph.tensor("a.bias").fill_(-100.0)
    with pytest.raises(ConstantActivations, match=r"^The output of 'a' is 0 everywhere"):
        pj.quantize(graph, [(torch.randn(16, 8), torch.ones(16, 8))])


def test_where_no_input_varies_the_data_are_refused():
    graph = pj.capture(Masked().eval(), (torch.randn(2, 8), torch.ones(2, 8)))
    with pytest.raises(ConstantActivations, match=r"^The input 'x' is 1 everywhere .* check the data"):
        pj.quantize(graph, [(torch.ones(16, 8), torch.ones(16, 8))])
