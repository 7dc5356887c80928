import copy
import functools
import gc
import weakref

import pytest
import small_networks as nets
import torch
from torch import nn
from torch.nn import functional as F

from penjing.errors import PenjingError
from penjing.graph import Graph, capture, load
from penjing.quantization import corrections, quantize
from penjing.quantization.corrections import activation_correction, batch_norm_statistics, bias_correction
from penjing.quantization.corrections._side_by_side import quantized_layers
from penjing.report import words

BEHIND = sorted(name for name, entry in corrections.items() if entry.stage == "quantized")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Mobile(nn.Module):
    """Few weights per channel, and inputs far from 0 in the mean: rounding the weights moves the mean of the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(8, 16, 1, bias=False)
        self.filter = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(F.relu6(self.filter(F.relu6(self.widen(x)))))
        return self.head(F.adaptive_avg_pool2d(F.relu(y + x), 1).flatten(1))


def _batches(count: int = 3, size: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 8, 8, 8, generator=generator) + 1 for _ in range(count)]


@functools.cache  # no test changes it
def _graph(network: type[nn.Module] = Mobile) -> Graph:
    torch.manual_seed(0)
    return capture(network().eval(), torch.randn(2, 8, 8, 8))


def _quantized(**settings) -> Graph:
    settings = {"weights": "int3", "simulate": True, "corrections": (), **settings}
    return quantize(_graph(), _batches(), **settings)


def _error(graph: Graph, small: Graph) -> float:
    x = torch.cat(_batches(6)[3:])
    with torch.no_grad():
        return float(F.mse_loss(small(x), graph(x)))


def _outputs(graph: Graph, x: torch.Tensor) -> dict[str, torch.Tensor]:
    names = [node.name for node in graph.program.graph.nodes if node.target in _LAYERS]
    with torch.no_grad():
        found = graph.with_outputs(names)(x)[1]
    return {name: value.movedim(-1 if value.dim() == 2 else 1, 0).flatten(1) for name, value in found.items()}


_LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)


def _layer_by_layer(graph: Graph, small: Graph, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Nagel et al.'s procedure as it is written: one pass per layer, the layers before it corrected. By name of node."""
    shifts, wanted = {}, _outputs(graph, x)
    for layer in quantized_layers(small):
        shift = wanted[layer.node.name].mean(1) - _outputs(small, x)[layer.node.name].mean(1)
        shape = (1, -1) if layer.node.target is _LAYERS[1] else (1, -1, 1, 1)
        nodes = small.program.graph
        small.set_tensor(f"{layer.node.name}_shift", shift.reshape(shape))
        with nodes.inserting_after(layer.node):
            constant = nodes.get_attr(f"{layer.node.name}_shift")
        with nodes.inserting_after(constant):
            added = nodes.call_function(torch.ops.aten.add.Tensor, (layer.node, constant))
        layer.node.replace_all_uses_with(added, delete_user_cb=lambda user, added=added: user is not added)
        small.refresh()
        shifts[layer.place] = shift
    return shifts


def _shifts(before: Graph, after: Graph) -> dict[str, torch.Tensor]:
    tensors = before.tensors()
    return {
        layer.place: (after.tensor(layer.bias) - tensors.get(layer.bias, torch.zeros(()))).detach()
        for layer in quantized_layers(after)
    }


# All corrections behind rounding


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize("weights", ["int3", "int4", "codebook:4", "ternary"])
def test_a_correction_lowers_the_error_of_a_network_that_needs_it(name, weights):
    if name == "batch_norm_statistics" and weights == "codebook:4":
        pytest.skip("a table has no scale")
    graph, settings = _graph(), {"weights": weights, "simulate": True}
    if weights == "ternary":
        settings["grain"] = "channel"
    plain, corrected = (quantize(graph, _batches(), corrections=c, **settings) for c in ([], [name]))
    assert _error(graph, corrected) < 0.8 * _error(graph, plain)


@pytest.mark.parametrize("name", BEHIND)
def test_a_correction_changes_every_layers_bias_and_says_so(name):
    small, graph = _quantized(), _graph()
    before = copy.deepcopy(small)
    assert corrections[name].function(small, graph, _batches()) == ("widen", "filter", "narrow", "head")
    for place, shift in _shifts(before, small).items():
        assert float(shift.abs().max()) > 1e-4, place


@pytest.mark.parametrize("name", BEHIND)
def test_the_plan_names_the_corrections_and_the_float_graph_stays(name):
    graph = _graph()
    before = {path: tensor.clone() for path, tensor in graph.tensors().items()}
    small = quantize(graph, _batches(), corrections=[name])
    assert all(words(record.to_json()).endswith(f", {name}") for record in small.plan)
    assert all(torch.equal(tensor, before[path]) for path, tensor in graph.tensors().items())


@pytest.mark.parametrize("name", BEHIND)
def test_a_corrected_graph_can_be_trained_and_saved(name, tmp_path):
    small, x = _quantized(corrections=[name]), _batches()[0]
    small.save(tmp_path / "small.penjing")
    torch.testing.assert_close(load(tmp_path / "small.penjing")(x), small(x), rtol=0, atol=0)
    small.train()
    small(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


@pytest.mark.parametrize("name", BEHIND)
def test_only_one_batch_is_kept(name):
    alive: list[weakref.ref[torch.Tensor]] = []

    class Batches:
        def __iter__(self):
            for batch in _batches(8, size=2):
                made = batch.clone()
                alive.append(weakref.ref(made))
                yield made
                del made
                gc.collect(1)  # the young objects: a batch is one, and all others take a second
                assert sum(one() is not None for one in alive) <= 1

    corrections[name].function(_quantized(), _graph(), Batches())
    assert len(alive) == 8


@pytest.mark.parametrize("network", nets.NETWORKS)
@pytest.mark.parametrize("name", ["bias_correction", "activation_correction"])
def test_corrections_of_the_mean_fit_every_network(network, name):
    graph, x = _graph(network), torch.cat(_batches())
    settings = {"weights": "int4", "simulate": True}
    with torch.no_grad():
        plain, corrected = (
            F.mse_loss(quantize(graph, _batches(), corrections=c, **settings)(x), graph(x)) for c in ([], [name])
        )
    assert float(corrected) < float(plain)


# Means


def test_with_one_batch_bias_correction_is_the_papers_layer_by_layer():
    graph, small, x = _graph(), _quantized(), _batches()[0]
    expected = _layer_by_layer(graph, copy.deepcopy(small), x)
    before = copy.deepcopy(small)
    bias_correction(small, graph, [x])
    for place, shift in _shifts(before, small).items():
        torch.testing.assert_close(shift, expected[place], rtol=1e-3, atol=1e-3 * float(expected[place].abs().max()))


def test_with_several_batches_bias_correction_is_near_the_papers_in_one_pass():
    graph, small, batches = _graph(), _quantized(), _batches(6)
    expected = _layer_by_layer(graph, copy.deepcopy(small), torch.cat(batches))
    before = copy.deepcopy(small)
    bias_correction(small, graph, batches)
    for place, shift in _shifts(before, small).items():
        assert float((shift - expected[place]).norm()) < 0.05 * float(expected[place].norm())


def test_the_mean_behind_each_activation_is_the_float_networks():
    graph, small, batches = _graph(), _quantized(), _batches(6)
    plain = copy.deepcopy(small)
    bias_correction(plain, graph, batches)
    activation_correction(small, graph, batches)
    x = torch.cat(batches)
    wanted, by_bias, by_activation = _outputs(graph, x), _outputs(plain, x), _outputs(small, x)
    for name in ("conv2d", "conv2d_1"):
        mean = wanted[name].clamp(0, 6).mean(1)
        off, before = ((o[name].clamp(0, 6).mean(1) - mean).abs().max() for o in (by_activation, by_bias))
        assert float(off) < 0.02 * float(mean.max()) and float(off) < 0.5 * float(before)


def test_layers_that_share_a_bias_share_its_correction():
    graph, x = _graph(nets.Shared), torch.cat(_batches())
    small = quantize(graph, [x], weights="int4", simulate=True, corrections=())
    before = small.tensor("conv.bias").detach().clone()
    wanted, got = _outputs(graph, x), _outputs(small, x)
    bias_correction(small, graph, [x])
    shift = small.tensor("conv.bias").detach() - before
    first = (wanted["conv2d"] - got["conv2d"]).mean(1)
    assert not torch.allclose(shift, first) and float((shift - first).norm()) < float(first.norm()) * 2


# Mean and variance


def test_with_one_batch_means_and_variances_are_the_float_networks():
    graph, small, x = _graph(), _quantized(), torch.cat(_batches())
    integers = _codes(small)
    batch_norm_statistics(small, graph, [x])
    wanted, got = _outputs(graph, x), _outputs(small, x)
    for name, value in wanted.items():
        slack = 1e-3 * float(value.std())
        torch.testing.assert_close(got[name].mean(1), value.mean(1), rtol=1e-3, atol=slack)
        torch.testing.assert_close(got[name].std(1), value.std(1), rtol=1e-3, atol=slack)
    assert all(torch.equal(codes, integers[place]) for place, codes in _codes(small).items())


def _codes(small: Graph) -> dict[str, torch.Tensor]:
    found = {}
    for layer in quantized_layers(small):
        weight, scale = small.tensor(layer.weight).detach(), small.tensor(f"{layer.weight}_scale")
        found[layer.place] = (weight / scale.reshape(-1, *[1] * (weight.dim() - 1))).round()
    return found


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"grain": "tensor"}, "a scale for each output channel"), ({"weights": "power_of_two:4"}, "powers of two")],
)
def test_weights_that_have_no_gain_of_their_own_are_an_error(settings, message):
    with pytest.raises(PenjingError, match=message):
        _quantized(**settings, corrections=["batch_norm_statistics"])


def test_groups_of_weights_take_gains_too():
    graph = _graph()
    settings = {"weights": "int3", "grain": "group:8", "simulate": True, "exclude": ["filter"]}
    plain, corrected = (quantize(graph, _batches(), corrections=c, **settings) for c in ([], ["batch_norm_statistics"]))
    assert _error(graph, corrected) < 0.8 * _error(graph, plain)


# Bad input


@pytest.mark.parametrize("name", corrections)
def test_data_that_can_be_read_once_only_is_an_error(name):
    with pytest.raises(PenjingError, match="iterator"):
        quantize(_graph(), iter(_batches()), corrections=[name])


@pytest.mark.parametrize("name", BEHIND)
def test_no_data_is_an_error(name):
    with pytest.raises(PenjingError, match="calibration data"):
        quantize(_graph(), activations=None, corrections=[name])


def test_an_unknown_correction_is_an_error():
    with pytest.raises(PenjingError, match="Did you mean 'bias_correction'"):
        quantize(_graph(), _batches(), corrections=["bias_corection"])


@pytest.mark.parametrize("name", BEHIND)
def test_a_float_graph_has_nothing_to_correct(name):
    with pytest.raises(PenjingError, match="nothing to correct"):
        corrections[name].function(_graph(), _graph(), _batches())


def test_another_networks_float_graph_is_an_error():
    with pytest.raises(PenjingError, match="isn't what the quantised graph was made of"):
        bias_correction(_quantized(), _graph(nets.Shared), _batches())
