"""Moments of what layers multiply, and integer least squares on them, against convolutions and enumeration."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.graph.taps import constant_values
from penjing.quantization import quantize
from penjing.quantization.grids import Laid, integers
from penjing.quantization.rounding import Rounded, SampledSpan, products
from penjing.quantization.rounding._descent import IntegerLeastSquares, descend, moments_of

LAYERS = [
    (nn.Linear(6, 4), (6,)),
    (nn.Linear(6, 4, bias=False), (3, 6)),
    (nn.Conv1d(4, 6, 3, padding=1), (4, 9)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=(1, 0)), (4, 9, 8)),
    (nn.Conv2d(4, 6, (1, 3), dilation=2, groups=2), (4, 9, 8)),
    (nn.Conv2d(4, 8, 3, groups=4, padding="same"), (4, 9, 8)),
    (nn.Conv2d(4, 4, (2, 5), padding="same", bias=False), (4, 9, 8)),
    (nn.Conv2d(4, 4, 3, padding="valid"), (4, 9, 8)),
    (nn.Conv3d(2, 4, 2, stride=(1, 2, 1), padding=1), (2, 4, 5, 6)),
]


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _part(layer, inputs, wanted=None, scale=0.1):
    """The layer as a part with an int3 grid; it should give `wanted`, by default what it does."""
    graph = capture(layer.eval(), inputs[:2])
    node = next(node for node in graph.program.graph.nodes if node.op == "call_function" and "weight" in str(node.args))
    (span,) = products(graph, [node])
    rows = layer.weight.detach().flatten(1)
    laid = Laid(
        integers("int3", symmetric=True), torch.full((len(rows),), scale), torch.zeros(len(rows), dtype=torch.int64)
    )
    wanted = layer(inputs).detach() if wanted is None else wanted
    weights = {node.args[1]: Rounded(rows / scale, laid, layer.weight.shape)}
    return SampledSpan(span, weights, constant_values(graph.program), [span.units(inputs)], span.units(wanted), None)


@pytest.mark.parametrize(
    ("layer", "shape"), LAYERS, ids=[f"{type(layer).__name__}{n}" for n, (layer, _) in enumerate(LAYERS)]
)
def test_moments_are_those_of_what_the_layer_multiplies(layer, shape):
    inputs = torch.randn(5, *shape, generator=_generator()) + 1
    part = _part(layer, inputs)
    first, second = moments_of(part, _generator())
    found = first.joined(second)
    # Independent of how inputs are cut out: what the layer itself gives must follow from them.
    weight = layer.weight.detach().double().reshape(len(found.inputs), -1, found.inputs.shape[1])
    torch.testing.assert_close(found.both, weight @ found.inputs, atol=1e-5, rtol=1e-5)
    outputs = layer(inputs).detach().double()
    channels = outputs.flatten(0, -2).T if isinstance(layer, nn.Linear) else outputs.movedim(1, 0).flatten(1)
    power = channels.square().mean(1) if layer.bias is None else channels.var(1, correction=0)
    explained = (weight @ found.inputs @ weight.mT).diagonal(dim1=1, dim2=2).flatten()
    torch.testing.assert_close(explained, power, rtol=1e-4, atol=1e-6)


def test_few_of_many_positions_tell_nearly_the_same():
    layer, inputs = nn.Conv2d(2, 3, 3, padding=1), torch.randn(2, 2, 256, 256, generator=_generator())
    first, second = moments_of(_part(layer, inputs), _generator())
    found = first.joined(second)
    torch.testing.assert_close(found.inputs[0], torch.eye(18, dtype=torch.float64), atol=0.05, rtol=0)


def test_no_move_of_one_weight_is_better_and_the_best_of_all_is_near():
    generator = _generator()
    mixed = torch.randn(200, 4, generator=generator) @ torch.randn(4, 4, generator=generator) + 1
    inputs = mixed + 0.3 * torch.randn(200, 4, generator=generator)  # the layers before are rounded
    torch.manual_seed(0)
    layer = nn.Linear(4, 24)
    layer.weight.data *= 0.5
    wanted = layer(mixed).detach()
    part = _part(layer, inputs, wanted)
    nearest = part.weights[0].real.round().clamp(-3, 3)
    first, second = moments_of(part, generator)
    problem = IntegerLeastSquares(part, first.both.shape)
    found = problem.solve(first.joined(second), 0.05, problem.laid(nearest), 50)[0]
    centred = (inputs - inputs.mean(0)).double()
    damping = 0.05 * float(centred.square().mean())

    def cost(weights, output):  # (…, 4) integers
        off = centred @ (0.1 * weights.double()).mT - (wanted - wanted.mean(0)).double()[:, [output]]
        return off.square().mean(0) + damping * (0.1 * weights.double() - layer.weight[output].detach()).square().sum(1)

    everything = torch.tensor(list(itertools.product(range(-3, 4), repeat=4)))
    steps = torch.cat([torch.eye(4), -torch.eye(4)])
    regret, gain = 0.0, 0.0
    for output in range(24):
        own = float(cost(found[[output]], output))
        assert own <= float(cost((found[output] + steps).clamp(-3, 3), output).min()) * (1 + 1e-9)
        best = float(cost(everything, output).min())
        regret += own - best
        gain += float(cost(nearest[[output]], output)) - best
    assert regret < 0.3 * gain


def test_weights_make_up_for_what_the_layers_before_lost():
    """The second layer's input has lost a quarter of its size: integers beside the real weights can't mend that."""
    generator = _generator()
    mixed = torch.randn(200, 8, generator=generator)
    torch.manual_seed(0)
    layer = nn.Linear(8, 16)
    part = _part(layer, 0.75 * mixed, layer(mixed).detach(), scale=0.15)
    found = descend(part, part.weights[0].real.round(), generator)
    assert float((found - part.weights[0].real).abs().max()) > 1


def test_what_few_samples_seem_to_tell_is_not_believed():
    torch.manual_seed(0)
    layer = nn.Linear(64, 32)
    seen, other = torch.randn(40, 64), torch.randn(4000, 64)
    part = _part(layer, seen + 0.3 * torch.randn(40, 64), layer(seen).detach(), scale=0.05)
    start = part.weights[0].real.round()
    found = descend(part, start, _generator())

    def error(integers):
        return float((other @ (part.weights[0].values(integers) - layer.weight.detach()).T).square().mean())

    assert error(found) < 1.2 * error(start)
    first, second = moments_of(part, _generator())
    problem = IntegerLeastSquares(part, first.both.shape)
    assert error(problem.solve(first.joined(second), 1e-6, problem.laid(start), 20)[0].float()) > 2 * error(start)


def test_weights_of_constant_inputs_stay():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, 3, groups=16)
    inputs = torch.rand(16).reshape(1, 16, 1, 1).expand(8, 16, 6, 6) * 3
    part = _part(layer, inputs.contiguous(), layer(inputs).detach() + 1e-7 * torch.randn(8, 16, 4, 4))
    start = part.weights[0].real.round()
    torch.testing.assert_close(descend(part, start, _generator()), start)


def test_one_image_is_enough_and_too_many_weights_are_told():
    torch.manual_seed(0)
    graph = capture(nn.Conv2d(3, 8, 3).eval(), torch.randn(2, 3, 40, 40))
    mixed = torch.einsum("nchw,cd->ndhw", torch.randn(1, 3, 40, 40), torch.randn(3, 3))
    nearest, found = (
        quantize(graph, [mixed], weights="int3", activations=None, rounding=rounding, corrections=())
        for rounding in ("nearest", "quantease")
    )
    assert not torch.equal(nearest.tensor("weight"), found.tensor("weight"))
    wide = capture(nn.Sequential(nn.Linear(10_000, 2)).eval(), torch.randn(2, 10_000))
    with pytest.raises(PenjingError, match=r"'0' has 10000: round with 'adaround'"):
        quantize(wide, [torch.randn(4, 10_000)], weights="int4", activations=None, rounding="quantease", corrections=())


def test_quantease_is_better_than_nearest_on_other_data():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 4, 1)).eval()
    mixing = torch.randn(4, 4)
    seen, other = (torch.einsum("nchw,cd->ndhw", torch.randn(64, 4, 10, 10) + 0.5, mixing) for _ in range(2))
    graph = capture(network, seen[:2])
    nearest, found = (
        quantize(graph, [seen], weights="int4", activations=None, rounding=rounding, corrections=())
        for rounding in ("nearest", "quantease")
    )
    with torch.no_grad():
        assert float(F.mse_loss(found(other), graph(other))) < 0.6 * float(F.mse_loss(nearest(other), graph(other)))
