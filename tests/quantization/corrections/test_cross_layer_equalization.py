import copy
import warnings

import pytest
import small_networks as nets
import torch
from torch import nn
from torch.nn import functional as F

from penjing import zoo
from penjing.errors import PenjingError
from penjing.graph import Graph, capture, fold_batch_norms
from penjing.quantization import quantize
from penjing.quantization.corrections import cross_layer_equalization


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Block(nn.Module):
    """What mobile networks are made of, its channels of very different sizes in each layer though not in what it computes."""

    def __init__(self, activation: nn.Module, spread: float = 2.0, pad: bool = False) -> None:
        super().__init__()
        self.widen = nn.Conv2d(8, 24, 1)
        self.pad = nn.ZeroPad2d(1) if pad else nn.Identity()
        self.filter = nn.Conv2d(24, 24, 3, padding=0 if pad else 1, groups=24)
        self.narrow = nn.Conv2d(24, 8, 1, bias=False)
        self.head = nn.Linear(8 * 16, 4)
        self.activation = activation
        with torch.no_grad():
            for first, second in ((self.widen, self.filter), (self.filter, self.narrow)):
                factor = 10 ** (spread * (torch.rand(24) - 0.5))
                first.weight *= factor[:, None, None, None]
                first.bias *= factor
                second.weight /= factor[:, None, None, None] if second.groups > 1 else factor[:, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.activation(self.filter(self.pad(self.activation(self.widen(x)))))
        y = F.relu(F.avg_pool2d(self.narrow(y) + x, 2))
        return self.head(y.flatten(1))


def _batches(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 8, 8, 8, generator=generator) for _ in range(count)]


def _graph(activation: nn.Module | None = None, **settings) -> Graph:
    torch.manual_seed(0)
    return capture(Block(activation or nn.ReLU(), **settings).eval(), torch.randn(2, 8, 8, 8))


def _equalized(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    small = fold_batch_norms(graph)
    return small, cross_layer_equalization(small, _batches())


def _signal_to_noise(expected: torch.Tensor, actual: torch.Tensor) -> float:
    return float(10 * torch.log10(expected.var() / (expected - actual).var()))


def _ranges(weight: torch.Tensor, axis: int) -> torch.Tensor:
    return weight.detach().movedim(axis, 0).flatten(1).abs().amax(1)


def _assert_same(graph: Graph, small: Graph, x: torch.Tensor) -> None:
    with torch.no_grad():
        wanted = graph(x)
        assert float((small(x) - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.LeakyReLU(0.1), nn.Identity(), nn.ReLU6(), nn.Hardtanh(-1.0, 2.0)]
)
@pytest.mark.parametrize("pad", [False, True])
def test_the_network_computes_the_same(activation, pad):
    graph = _graph(activation, spread=1.0, pad=pad)
    small, changed = _equalized(graph)
    assert changed == ("widen", "filter", "narrow")
    for x in _batches():
        _assert_same(graph, small, x)


def test_both_weights_of_a_pair_have_equal_ranges_by_channel():
    small, _ = _equalized(_graph())
    widen, filtered, narrow = (small.tensor(f"{name}.weight") for name in ("widen", "filter", "narrow"))
    torch.testing.assert_close(_ranges(widen, 0), _ranges(filtered, 0), rtol=3e-3, atol=0)
    torch.testing.assert_close(_ranges(filtered, 0), _ranges(narrow, 1), rtol=3e-3, atol=0)


def test_one_pair_is_scaled_by_the_papers_formula():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    graph = capture(net.eval(), torch.randn(2, 4))
    first, second = graph.tensor("0.weight").detach().clone(), graph.tensor("2.weight").detach().clone()
    cross_layer_equalization(graph, [torch.randn(64, 4)])
    scale = (_ranges(first, 0) / _ranges(second, 1)).sqrt()
    torch.testing.assert_close(graph.tensor("0.weight").detach(), first / scale[:, None])
    torch.testing.assert_close(graph.tensor("2.weight").detach(), second * scale)


def test_weights_with_one_scale_gain_a_lot():
    graph, x = _graph(), _batches()[0]
    plain = quantize(graph, _batches(), grain="tensor", corrections=())
    equalized = quantize(graph, _batches(), grain="tensor", corrections=["cross_layer_equalization"])
    with torch.no_grad():
        wanted = graph(x)
        assert _signal_to_noise(wanted, equalized(x)) > _signal_to_noise(wanted, plain(x)) + 8


def test_channels_that_reach_a_clip_keep_their_scale_and_others_stay_below_it():
    graph = _graph(nn.ReLU6(), spread=3.0)
    before = graph.tensor("widen.weight").detach().clone()
    x = torch.cat(_batches())
    small, _ = _equalized(graph)
    with torch.no_grad():
        seen = F.conv2d(x, before, graph.tensor("widen.bias")).amax((0, 2, 3))
        now = F.conv2d(x, small.tensor("widen.weight"), small.tensor("widen.bias")).amax((0, 2, 3))
    reached, scale = seen >= 6, _ranges(small.tensor("widen.weight"), 0) / _ranges(before, 0)
    assert 0 < int(reached.sum()) < 24
    torch.testing.assert_close(scale[reached], torch.ones_like(scale[reached]))
    assert float((scale[~reached] - 1).abs().max()) > 0.5 and float(now[~reached].max()) < 6
    _assert_same(graph, small, x)


def test_without_data_a_network_without_clips_is_equalised_and_one_with_clips_isnt():
    graph, x = _graph(), _batches()[0]
    small = copy.deepcopy(graph)
    assert cross_layer_equalization(small) == ("widen", "filter", "narrow")
    _assert_same(graph, small, x)
    with pytest.raises(PenjingError, match="calibration data"):
        cross_layer_equalization(_graph(nn.ReLU6()))


def test_a_high_bias_moves_to_the_next_layers():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        net[0].bias[1] += 30
    graph, x = capture(net.eval(), torch.randn(2, 3, 8, 8)), torch.randn(32, 3, 8, 8)
    small = copy.deepcopy(graph)
    cross_layer_equalization(small, [x])
    with torch.no_grad():
        hidden = F.conv2d(x, small.tensor("0.weight"), small.tensor("0.bias")).amin((0, 2, 3))
        assert float(hidden[1]) == pytest.approx(0, abs=1e-4)
        assert float(small.tensor("2.bias").abs().max()) > 0.1
    _assert_same(graph, small, x)


def test_a_bias_isnt_absorbed_where_zeros_are_read_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    with torch.no_grad():
        net[0].bias += 30
    graph, x = capture(net.eval(), torch.randn(2, 3, 8, 8)), torch.randn(32, 3, 8, 8)
    small = copy.deepcopy(graph)
    cross_layer_equalization(small, [x])
    assert float(small.tensor("0.bias").detach().min()) > 5
    _assert_same(graph, small, x)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_convolutions_and_flattened_positions_keep_their_channels(groups):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=groups), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=groups), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    graph, x = capture(net.eval(), torch.randn(2, 4, 8, 8)), torch.randn(16, 4, 8, 8)
    small = copy.deepcopy(graph)
    assert cross_layer_equalization(small, [x]) == ("0", "2", "7", "9")
    _assert_same(graph, small, x)


def test_a_value_that_two_layers_read_is_scaled_back_in_both():
    torch.manual_seed(0)
    graph = capture(nets.Fire().eval(), torch.randn(2, 8, 8, 8))
    small = copy.deepcopy(graph)
    assert cross_layer_equalization(small, _batches()) == ("squeeze", "expand1", "expand3")
    _assert_same(graph, small, _batches()[0])


def test_a_residual_network_is_equalised_inside_its_blocks():
    torch.manual_seed(0)
    model, x = zoo.resnet20(), torch.randn(8, 3, 32, 32)
    model(x)
    graph = capture(model.eval(), x[:2])
    small = fold_batch_norms(graph)
    changed = cross_layer_equalization(small, [x])
    assert set(changed) >= {
        f"layer{stage}.{block}.conv{k}" for stage in (1, 2, 3) for block in (0, 1, 2) for k in (1, 2)
    }
    assert "conv1" not in changed
    _assert_same(graph, small, x)


@pytest.mark.parametrize("network", nets.NETWORKS)
def test_every_network_computes_the_same_or_says_why_nothing_fits(network):
    torch.manual_seed(0)
    graph, x = capture(network().eval(), torch.randn(2, 8, 8, 8)), torch.cat(_batches())
    small = fold_batch_norms(graph)
    try:
        assert cross_layer_equalization(small, _batches())
    except PenjingError as error:
        assert "reads its output" in str(error) or "more than once" in str(error)
    _assert_same(graph, small, x)


def test_a_network_where_nothing_fits_is_an_error_that_names_what_stands_between():
    graph = capture(nn.Sequential(nn.Conv2d(8, 8, 1), nn.GELU(), nn.Conv2d(8, 4, 1)).eval(), torch.randn(2, 8, 8, 8))
    with pytest.raises(PenjingError, match=r"no two layers.*'0': 'gelu' reads its output"):
        quantize(graph, _batches(), corrections=["cross_layer_equalization"])


def test_a_network_that_is_equalised_already_is_a_warning():
    small, _ = _equalized(_graph())
    with pytest.warns(UserWarning, match="changes nothing"):
        assert cross_layer_equalization(small, _batches()) == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cross_layer_equalization(_graph(), _batches())
