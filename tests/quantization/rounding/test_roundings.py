import itertools

import pytest
import small_networks as nets
import torch
from torch import nn
from torch.nn import functional as F

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantization import quantize, roundings
from penjing.quantization.rounding import find_rounding, gauss_newton

LOCAL = [name for name, entry in roundings.items() if not entry.learned]
LEARNED = [name for name in roundings if name not in LOCAL]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _graph(network=nets.Residual):
    torch.manual_seed(0)
    return capture(network().eval(), torch.randn(2, 8, 8, 8))


def _batches(count=2, size=8):
    generator = _generator(1)
    return [torch.randn(size, 8, 8, 8, generator=generator) for _ in range(count)]


# Weight by weight


@pytest.mark.parametrize("name", LOCAL)
def test_whole_numbers_stay_and_others_move_less_than_one_step(name):
    whole = torch.arange(-7.0, 8.0)
    real = torch.randn(1000, generator=_generator()) * 5
    rounding = roundings[name].function
    torch.testing.assert_close(rounding(whole, _generator()), whole)
    rounded = rounding(real, _generator())
    assert bool((rounded == rounded.round()).all())
    assert float((rounded - real).abs().max()) < 1


def test_truncation_shrinks_magnitudes_by_half_a_step_on_average_and_nearest_is_right_on_average():
    real = torch.rand(100_000, generator=_generator(), dtype=torch.float64) * 50
    cut, nearest = (roundings[name].function(real, _generator()) - real for name in ("truncate", "nearest"))
    assert float(cut.mean()) == pytest.approx(-0.5, abs=0.01)
    assert float(nearest.mean()) == pytest.approx(0, abs=0.01)
    assert float(cut.square().mean()) == pytest.approx(1 / 3, rel=0.02)
    assert float(nearest.square().mean()) == pytest.approx(1 / 12, rel=0.02)
    clear = (real - real.round()).abs() > 1e-4  # of whole numbers, which measured weights may miss a little
    assert bool((roundings["truncate"].function(-real, _generator()) == real.neg().trunc())[clear].all())


def test_stochastic_rounding_is_right_on_average_for_each_weight():
    real = torch.tensor([0.25, -0.75, 3.9])
    generator = _generator()
    drawn = torch.stack([roundings["stochastic"].function(real, generator) for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(0), real, atol=0.03, rtol=0)


@pytest.mark.parametrize("name", LOCAL)
def test_plain_rounding_in_the_graph_gives_the_integers_that_were_chosen(name):
    graph = _graph()
    small = quantize(graph, weights="int4", activations=None, rounding=name, seed=3)
    scale = small.tensor("conv2.weight_scale")
    # Independent of the code that inserts pairs: the float graph's weights, folded, in steps.
    norm = {key: graph.tensor(f"bn2.{key}").detach() for key in ("weight", "running_var")}
    folded = (
        graph.tensor("conv2.weight").detach()
        * (norm["weight"] / (norm["running_var"] + 1e-5).sqrt())[:, None, None, None]
    )
    real = folded / scale[:, None, None, None]
    kept = torch.fake_quantize_per_channel_affine(
        small.tensor("conv2.weight").detach(), scale, torch.zeros(8, dtype=torch.int32), 0, -7, 7
    )
    steps = kept / scale[:, None, None, None]
    inside = real.abs() < 7
    away = (steps - real)[inside].abs()
    assert float(away.max()) <= (0.501 if name == "nearest" else 1.0)
    if name == "truncate":
        assert bool((steps[inside].abs() <= real[inside].abs() + 1e-4).all())


def test_the_seed_decides_what_stochastic_rounding_draws():
    weights = [
        quantize(_graph(), weights="int4", activations=None, rounding="stochastic", seed=seed).tensor("conv1.weight")
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


# Learned


def _correlated(generator, width, count=256):
    return torch.randn(count, width, generator=generator) @ torch.randn(width, width, generator=generator) / 2 + 0.5


def _corners(weight, scale):
    """All ways to round a weight up or down to three bits, `(2 ** weights, *weight.shape)`."""
    below = (weight / scale[:, None]).floor()
    ups = torch.tensor(list(itertools.product((0.0, 1.0), repeat=weight.numel()))).reshape(-1, *weight.shape)
    return (below + ups).clamp(-3, 3) * scale[:, None]


def _both(graph, inputs, *learned):
    return [
        quantize(graph, [inputs], weights="int3", activations=None, rounding=rounding, corrections=())
        for rounding in ("nearest", *learned)
    ]


def _with_the_best_bias(clip, products, wanted):
    """The least mean squared error that any bias gives: `(…, samples)` products of weights and inputs -> `(…)`."""
    biases = torch.linspace(-1.5, 1.5, 601)
    return torch.stack([(clip(products + bias) - wanted).square().mean(-1) for bias in biases]).amin(0)


@pytest.mark.parametrize("clip", [nn.Identity(), nn.ReLU6()], ids=["linear", "clipped"])
def test_adaround_goes_a_good_part_of_the_way_from_nearest_to_the_best_of_all_roundings_and_biases(clip):
    generator = _generator()
    inputs, layer = _correlated(generator, 8), nn.Linear(8, 16)
    layer.weight.data = torch.randn(16, 8, generator=generator) * 0.3
    layer.bias.data = torch.randn(16, generator=generator) * 0.3
    graph = capture(nn.Sequential(layer, clip), inputs[:2])
    wanted = graph(inputs).detach()
    nearest, learned = _both(graph, inputs, "adaround:300")
    # Independent of the code under test: outputs don't depend on one another's weights.
    best, before = 0.0, 0.0
    for output, scale in enumerate(nearest.tensor("0.weight_scale")):
        real = layer.weight.detach()[output]
        rows = _corners(real[None], scale[None])[:, 0]
        best += float(_with_the_best_bias(clip, rows @ inputs.T, wanted[:, output]).min())
        rounded = (real / scale).round().clamp(-3, 3) * scale
        before += float(_with_the_best_bias(clip, inputs @ rounded, wanted[:, output]))
    after = float(F.mse_loss(learned(inputs).detach(), wanted)) * 16
    assert best * 0.99 <= after
    assert after - best < (before - best) * 2 / 3


def test_adaround_gives_each_channel_its_mean_and_no_more_error_than_nearest_with_that_mean():
    torch.manual_seed(0)
    inputs, layer = _correlated(_generator(), 8), nn.Linear(8, 64)
    graph = capture(layer, inputs[:2])
    wanted = graph(inputs).detach()
    nearest, learned = (small(inputs).detach() - wanted for small in _both(graph, inputs, "adaround:300"))
    torch.testing.assert_close(learned.mean(0), torch.zeros(64), atol=1e-6, rtol=0)
    assert bool((learned.square().mean(0) <= nearest.var(0, correction=0) * (1 + 1e-4)).all())
    assert float(learned.square().mean()) < 0.7 * float(nearest.var(0).mean())


@pytest.mark.parametrize("name", LEARNED)
def test_a_bias_that_another_layer_reads_stays_and_is_not_fitted_into_the_weights(name):
    class Sharing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.bias = self.first.bias

        def forward(self, x):
            return self.second(self.first(x).relu())

    torch.manual_seed(0)
    inputs = _correlated(_generator(), 8)
    network = Sharing()
    network.first.bias.data += 5
    graph = capture(network, inputs[:2])
    nearest, learned = _both(graph, inputs, f"{name}:20")
    torch.testing.assert_close(learned.tensor("first.bias"), graph.tensor("first.bias"), atol=0, rtol=0)
    before, after = (float(F.mse_loss(small(inputs), graph(inputs)).detach()) for small in (nearest, learned))
    assert after < before


PARTS = {
    "linear_behind_linear": (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), (8,)),
    "linear_of_sequences": (nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)), (5, 8)),
    "flattened": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 4)), (2, 4, 4)),
    "flattened_at_the_end": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten()), (2, 4, 4)),
    "shuffled": (nn.Sequential(nn.Conv2d(2, 8, 3), nn.PixelShuffle(2), nn.Conv2d(2, 4, 1)), (2, 4, 4)),
    "normalised": (nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Linear(8, 4)), (8,)),
}


@pytest.mark.parametrize("activations", [None, "auto"])
@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("part", PARTS)
def test_parts_of_every_form_can_be_learned(part, name, activations):
    network, shape = PARTS[part]
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    inputs = torch.randn(64, *shape)
    graph = capture(network.eval(), inputs[:2])
    nearest, learned = (
        quantize(graph, [inputs], weights="int3", activations=activations, rounding=rounding, corrections=())
        for rounding in ("nearest", f"{name}:60")
    )
    with torch.no_grad():
        wanted = graph(inputs)
        assert float(F.mse_loss(learned(inputs), wanted)) < 1.1 * float(F.mse_loss(nearest(inputs), wanted))


@pytest.mark.parametrize("grain", ["tensor", "group:8"])
@pytest.mark.parametrize("name", LEARNED)
def test_learned_roundings_know_every_grain(name, grain):
    torch.manual_seed(0)
    inputs = _correlated(_generator(), 16)
    graph = capture(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8)), inputs[:2])
    nearest, learned = (
        quantize(graph, [inputs], weights="uint4", activations=None, grain=grain, rounding=rounding, corrections=())
        for rounding in ("nearest", f"{name}:100")
    )
    with torch.no_grad():
        assert float(F.mse_loss(learned(inputs), graph(inputs))) < float(F.mse_loss(nearest(inputs), graph(inputs)))


def test_brecq_is_never_worse_than_nearest_and_goes_towards_the_best_of_all_roundings_of_two_layers_together():
    far, left = 0.0, 0.0
    for seed in range(10):
        torch.manual_seed(seed)
        generator = _generator(seed)
        inputs, first, second = _correlated(generator, 4), nn.Linear(4, 2), nn.Linear(2, 1)
        first.weight.data = torch.randn(2, 4, generator=generator) * 0.5
        graph = capture(nn.Sequential(first, nn.ReLU(), second), inputs[:2])
        wanted = graph(inputs).detach()
        nearest, learned = _both(graph, inputs, "brecq:300")
        best = float("inf")
        for last in _corners(second.weight.detach(), nearest.tensor("2.weight_scale")):
            for hidden in _corners(first.weight.detach(), nearest.tensor("0.weight_scale")).split(64):
                middle = (inputs @ hidden.transpose(1, 2) + first.bias.detach()).relu()
                made = middle @ last.T + second.bias.detach()
                best = min(best, float((made - wanted).square().mean((1, 2)).min()))
        errors = [float(F.mse_loss(small(inputs).detach(), wanted)) for small in (nearest, learned)]
        assert best * (1 - 1e-4) <= errors[1] <= errors[0]
        far += errors[0] / best - 1
        left += errors[1] / best - 1
    assert left < 0.85 * far  # with so few weights most single steps are worse


def test_blocks_let_errors_of_layers_cancel_which_layers_alone_can_not():
    # The output is the sum of many channels: how far each of them is off matters little, how far their sum is matters alone.
    # The last weights are exactly on the grid, so that it's the first ones that must cancel.
    inputs, first, second = _correlated(_generator(), 8), nn.Linear(8, 16), nn.Linear(16, 1)
    first.weight.data = torch.randn(16, 8, generator=_generator(1)) * 0.1
    first.bias.data.fill_(3.0)
    second.weight.data.fill_(1.0)
    graph = capture(nn.Sequential(first, nn.ReLU(), second), inputs[:2])
    smalls = _both(graph, inputs, "adaround:300", "brecq:300")
    nearest, layers, blocks = (float(F.mse_loss(small(inputs), graph(inputs)).detach()) for small in smalls)
    assert blocks < 0.5 * layers and layers < nearest


def test_channels_weigh_what_the_outputs_derivatives_by_them_are():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 1))
    graph, x = capture(network, torch.randn(2, 4)), torch.randn(16, 4)
    nodes = {str(node.target): node.name for node in graph.program.graph.nodes}
    inner, last = nodes["aten.softplus.default"], [n for n in graph.program.graph.nodes if n.op == "call_function"][-1]
    found = gauss_newton(graph, [[x]], {inner: -1, last.name: -1}, _generator())
    wanted = network[2].weight.detach()[0].square()  # with one output the signs don't matter
    torch.testing.assert_close(found[inner], wanted / wanted.mean())
    torch.testing.assert_close(found[last.name], torch.ones(1))


@pytest.mark.parametrize("name", LEARNED)
def test_learned_roundings_lower_the_error_of_a_network_in_few_bits(name):
    graph, batches = _graph(), _batches(2, 32)
    x = torch.randn(64, 8, 8, 8, generator=_generator(9))
    with torch.no_grad():
        nearest, learned = (
            F.mse_loss(quantize(graph, batches, weights="int4", rounding=rounding, corrections=())(x), graph(x))
            for rounding in ("nearest", f"{name}:200")
        )
    assert float(learned) < 0.7 * float(nearest)


@pytest.mark.parametrize("name", LEARNED)
def test_learned_roundings_are_repeatable_and_leave_the_graphs_form_alone(name):
    first, second = (quantize(_graph(), _batches(), weights="int4", rounding=f"{name}:5") for _ in range(2))
    assert torch.equal(first.tensor("conv1.weight"), second.tensor("conv1.weight"))
    assert first.program.code == quantize(_graph(), _batches(), weights="int4").program.code


@pytest.mark.parametrize("weights", ["int4", "uint4"])
@pytest.mark.parametrize("name", LEARNED)
def test_learned_roundings_leave_pruned_weights_at_zero(name, weights):
    graph = _graph()
    graph.masks["conv1.weight"] = torch.rand(graph.tensor("conv1.weight").shape, generator=_generator()) > 0.5
    graph.apply_masks()
    small = quantize(graph, _batches(), weights=weights, rounding=f"{name}:10")
    assert bool((small.tensor("conv1.weight")[~graph.masks["conv1.weight"]] == 0).all())


# Bad input


@pytest.mark.parametrize(
    ("rounding", "message"),
    [
        ("nearst", "Did you mean 'nearest'"),
        ("nearest:3", "takes no number"),
        ("adaround:0", "above 0"),
        ("adaround:x", "above 0"),
        (None, "Unknown rounding"),
    ],
)
def test_roundings_that_mean_nothing_are_errors(rounding, message):
    with pytest.raises(PenjingError, match=message):
        find_rounding(rounding)


def test_a_learned_rounding_needs_data_that_can_be_read_again():
    with pytest.raises(PenjingError, match="calibration data"):
        quantize(_graph(), weights="int4", activations=None, rounding="adaround")
    with pytest.raises(PenjingError, match="iterator"):
        quantize(_graph(), iter(_batches()), weights="int4", rounding="adaround")


def test_a_rounding_for_weights_that_have_their_own_is_an_error():
    with pytest.raises(PenjingError, match="'ternary' has a rounding of its own"):
        quantize(_graph(), weights="ternary", activations=None, rounding="truncate")
