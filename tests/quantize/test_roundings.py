import itertools

import pytest
import small_networks as nets
import torch
from torch import nn
from torch.nn import functional as F

from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.quantize import quantize, roundings
from penjing.quantize.grids import Rows, find_grid
from penjing.quantize.rounding import Collector, Layer, Samples, adaround, find_rounding

LOCAL = [name for name, entry in roundings.items() if not entry.traits.get("learned")]
EVERYTHING = (-float("inf"), float("inf"))


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


def _layer(seed, clip):
    generator = _generator(seed)
    weight = torch.randn(4, 8, generator=generator) * 0.3
    inputs = torch.randn(1, 1000, 8, generator=generator) @ torch.randn(8, 8, generator=generator) / 8**0.5 + 0.5
    laid = find_grid("int3").lay(Rows(weight))
    bounds = (0.0, 6.0) if clip else EVERYTHING
    return Layer(weight / laid.scale[:, None], laid, 4, 1, None, bounds), Samples(inputs, inputs @ weight.T)


@pytest.mark.parametrize("clip", [False, True])
def test_adaround_goes_most_of_the_way_from_nearest_to_the_best_of_all_roundings(clip):
    far, left = 0.0, 0.0
    for seed in range(3):
        layer, samples = _layer(seed, clip)
        corners = [torch.tensor(corner) for corner in itertools.product((0.0, 1.0), repeat=8)]
        best = torch.stack([layer.whole_error(layer.real.floor() + corner, samples) for corner in corners]).amin(0)
        nearest = layer.whole_error(layer.real.round(), samples)
        learned = layer.whole_error(adaround(layer, samples, _generator(), 300), samples)
        assert bool((learned <= nearest).all()) and bool((learned >= best * (1 - 1e-5)).all())
        far += float(nearest.sum() / best.sum()) - 1
        left += float(learned.sum() / best.sum()) - 1
    assert left < far / 2


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(4, 8, (1, 3), groups=4, bias=False, padding="same"),
        nn.Conv2d(4, 4, 5, groups=4, padding=2),
        nn.Linear(9, 5),
    ],
    ids=["strided", "grouped", "depthwise", "linear"],
)
def test_a_layer_at_sampled_positions_is_a_matrix_product(module):
    torch.manual_seed(0)
    graph = capture(nn.Sequential(module), torch.randn(2, 4, 9, 9))
    small = quantize(graph, weights="int8", activations=None)
    node = next(n for n in small.program.graph.nodes if str(n.target).startswith(("aten.conv2d", "aten.linear")))
    batches = [torch.randn(3, 4, 9, 9), torch.randn(2, 4, 9, 9)]
    samples = Collector(small, graph, batches, [node], _generator()).collect(node)
    weight = module.weight.detach()
    groups = getattr(module, "groups", 1)
    made = samples.patches @ weight.reshape(groups, len(weight) // groups, -1).transpose(1, 2)
    if module.bias is not None:
        made = made + module.bias.detach().reshape(groups, 1, -1)
    torch.testing.assert_close(made, samples.outputs, atol=1e-5, rtol=1e-5)
    assert samples.outputs.shape[1] >= 5


def test_adaround_lowers_the_error_of_a_network_in_few_bits():
    graph, batches = _graph(), _batches(2, 32)
    x = torch.randn(64, 8, 8, 8, generator=_generator(9))
    with torch.no_grad():
        nearest, learned = (
            F.mse_loss(quantize(graph, batches, weights="int4", rounding=rounding)(x), graph(x))
            for rounding in ("nearest", "adaround:200")
        )
    assert float(learned) < 0.7 * float(nearest)


def test_adaround_is_repeatable_and_leaves_the_graphs_form_alone():
    first, second = (quantize(_graph(), _batches(), weights="int4", rounding="adaround:5") for _ in range(2))
    assert torch.equal(first.tensor("conv1.weight"), second.tensor("conv1.weight"))
    assert first.program.code == quantize(_graph(), _batches(), weights="int4").program.code


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
