"""Weights that a model computes from its parameters alone are folded at capture, and go back where they came from."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import penjing as pj
from penjing.graph import Graph

aten = torch.ops.aten


class Standardised(nn.Conv2d):
    """A convolution whose weight has mean 0 and variance 1 per output, times a gain (Qiao et al., 2019)."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        scale = self.gain.view(-1)
        weight = F.batch_norm(flat, None, None, weight=scale, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


class LastAxisFirst(nn.Module):
    """A convolution that keeps its kernel as (kH, kW, in_channels, out_channels), as Keras does."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.kernel, self.bias = (
            nn.Parameter(torch.randn(size, size, inputs, outputs)),
            nn.Parameter(torch.randn(outputs)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel.permute(3, 2, 0, 1), self.bias)


def _network(layer: Callable[[int, int, int], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    body = (layer(3, 8, 3), nn.ReLU(), layer(8, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(12, 4)).eval()


CONVOLUTIONS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "weight norm": lambda *sizes: parametrizations.weight_norm(nn.Conv2d(*sizes)),
    "weight norm by hook": lambda *sizes: weight_norm(nn.Conv2d(*sizes)),
    "spectral norm": lambda *sizes: parametrizations.spectral_norm(nn.Conv2d(*sizes)),
    "spectral norm by hook": lambda *sizes: spectral_norm(nn.Conv2d(*sizes)),
    "pruned by mask": lambda *sizes: prune.l1_unstructured(nn.Conv2d(*sizes), "weight", 0.3),
    "standardised": Standardised,
    "last axis first": LastAxisFirst,
}


@pytest.fixture(scope="module", params=CONVOLUTIONS, ids=list(CONVOLUTIONS))
def computed(request: pytest.FixtureRequest) -> tuple[str, Graph]:
    network = _network(CONVOLUTIONS[request.param])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return request.param, pj.capture(network, torch.randn(2, 3, 9, 9))


def _weights(graph: Graph) -> list[object]:
    layers = (aten.conv2d.default, aten.linear.default)
    return [node.args[1] for node in graph.program.graph.nodes if node.target in layers]


def test_computed_weights_are_parameters_that_quantise_and_prune_like_any_other(computed: tuple[str, Graph]) -> None:
    name, graph = computed
    model, x = _network(CONVOLUTIONS[name]), torch.randn(4, 3, 9, 9)
    torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)
    assert [node.op for node in _weights(graph)] == ["get_attr"] * 3
    expected = {"last axis first": "kernel"}.get(name, "weight")
    assert [node.target for node in _weights(graph)] == [f"0.{expected}", f"2.{expected}", "6.weight"]
    assert [group.units for group in pj.channels(graph).groups] == [8, 12]
    assert len(pj.quantize(graph, [x, x]).plan) == 3
    assert sum(parameter.numel() for parameter in graph.parameters()) == 27 * 8 + 8 + 72 * 12 + 12 + 48 + 4


def test_a_folded_weight_goes_back_into_the_module_that_computes_it(computed: tuple[str, Graph]) -> None:
    name, graph = computed
    model, x = _network(CONVOLUTIONS[name]), torch.randn(4, 3, 9, 9)
    small = pj.prune(graph, 0.5)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if name == "standardised":
            with pytest.raises(pj.PenjingError, match=r"computes '0.weight', '2.weight' from 0.weight, 0.gain"):
                small.write_into(model)
            assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
            return
        small.write_into(model)
    torch.testing.assert_close(model(x), small(x), rtol=1e-4, atol=1e-5)
    assert name == "last axis first" or (model[0].out_channels, model[2].in_channels) == (4, 4)
    removed = [str(warning.message) for warning in said if "was removed from" in str(warning.message)]
    assert len(removed) == (2 if name.startswith("spectral") else 0)
    assert list(model.state_dict()) == list(state) or name.startswith("spectral")
    model.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_that_cannot_take_a_folded_weight_is_left_as_it_was() -> None:
    model = _network(lambda *sizes: parametrizations.spectral_norm(nn.Conv2d(*sizes)))
    before, x = list(model.state_dict()), torch.randn(2, 3, 9, 9)
    graph, expected = pj.capture(model, x), model(x)
    with torch.no_grad():
        graph.set_tensor("6.weight", nn.Parameter(torch.zeros(5, 12)))
        graph.set_tensor("6.bias", nn.Parameter(torch.zeros(5)))
    graph.set_tensor("7.weight", nn.Parameter(torch.zeros(5)))
    with pytest.raises(pj.PenjingError, match="no place"):
        graph.write_into(model)
    assert list(model.state_dict()) == before
    torch.testing.assert_close(model(x), expected)


def test_of_two_computed_tensors_the_one_that_cannot_be_given_back_alone_is_plain() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

        def right_inverse(self, x: Tensor) -> Tensor:
            return x / 2

    layer = parametrizations.spectral_norm(nn.Linear(6, 8))
    parametrize.register_parametrization(layer, "bias", Doubled())
    model, x = nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(4, 6)
    small = pj.prune(pj.capture(model, x), 0.5)
    with pytest.warns(UserWarning, match="SpectralNorm was removed from '0'"):
        small.write_into(model)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "parametrizations.bias.original"}
    torch.testing.assert_close(model(x), small(x))


class Product(nn.Module):
    """A network of one kind of dense product with matrices that it holds inputs first."""

    def __init__(self, product: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8))
        self.second, self.other = nn.Parameter(torch.randn(8, 3)), nn.Parameter(torch.randn(3))
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.product(self.product(x, self.first, self.bias).relu(), self.second, self.other)


PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "matmul": lambda x, w, b: x @ w + b,
    "mm": lambda x, w, b: torch.mm(x, w),
    "addmm": lambda x, w, b: torch.addmm(b, x, w),
    "einsum": lambda x, w, b: torch.einsum("...i,io->...o", x, w) + b,
    "matmul with a transpose": lambda x, w, b: x @ w.t().contiguous().t(),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_product_with_a_constant_matrix_is_a_linear_layer(kind: str, tmp_path: Path) -> None:
    model, x = Product(PRODUCTS[kind]), torch.randn(5, 6)
    graph = pj.capture(model, x[:2])
    assert [node.target for node in _weights(graph)] == ["first", "second"]
    assert graph.tensor("first").shape == (8, 6)
    small = pj.prune(graph, 0.5)
    assert small.tensor("first").shape == (4, 6)
    small.save(tmp_path / "small.penjing")
    loaded = pj.load(tmp_path / "small.penjing")
    assert loaded.folded == small.folded
    loaded.write_into(model)
    assert model.first.shape == (6, 4)
    torch.testing.assert_close(model(x), small(x))
    assert len(pj.quantize(graph, [x, x]).plan) == 2


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor], **parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (lambda m, x: F.linear(x, m.left @ m.right), {"left": torch.randn(9, 2), "right": torch.randn(2, 6)}),
        (lambda m, x: F.linear(x, m.row.expand(9, 6)), {"row": torch.randn(1, 6)}),
        (lambda m, x: F.linear(x, m.weight * 2) + m.weight.sum(), {"weight": torch.randn(9, 6)}),
        (lambda m, x: F.linear(x @ m.weight, m.weight * 2), {"weight": torch.randn(6, 6)}),
        (lambda m, x: x @ torch.ones(6, 6), {"unused": torch.randn(3)}),
        (lambda m, x: F.linear(x, m.weight * torch.rand(9, 6) * 0 + m.weight), {"weight": torch.randn(9, 6)}),
    ],
    ids=["factors", "expanded", "read elsewhere", "read as another weight", "fixed matrix", "random"],
)
def test_what_would_grow_or_is_read_elsewhere_or_is_no_weight_stays_as_it_is(
    function: Callable[..., Tensor], parameters: dict[str, Tensor]
) -> None:
    model, x = Lambda(function, **parameters), torch.randn(3, 6)
    graph = pj.capture(model, x)
    assert not graph.folded
    assert {name: value.shape for name, value in graph.named_parameters()} == {
        name: value.shape for name, value in parameters.items()
    }
    torch.testing.assert_close(graph(x), model(x))


def test_a_weight_that_two_calls_compute_is_one_weight() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = parametrizations.weight_norm(nn.Linear(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x).relu())

    model, x = Twice(), torch.randn(3, 6)
    graph = pj.capture(model, x)
    assert [node.target for node in _weights(graph)] == ["layer.weight"] * 2
    with torch.no_grad():
        graph.tensor("layer.weight").mul_(0.5)
    graph.write_into(model)
    torch.testing.assert_close(model(x), graph(x))


def test_an_embedding_that_is_the_output_layer_too_stays_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.embed(tokens) @ self.embed.weight.t()

    model, tokens = Tied(), torch.randint(0, 11, (2, 5))
    graph = pj.capture(model, tokens)
    assert [node.target for node in _weights(graph)] == ["embed.weight"] and not graph.folded
    torch.testing.assert_close(graph(tokens), model(tokens))


def test_masks_of_torch_pruning_hold_while_the_graph_is_trained() -> None:
    model = prune.l1_unstructured(nn.Linear(6, 5), "weight", 0.4)
    graph = pj.capture(model, torch.randn(2, 6))
    assert torch.equal(graph.masks["weight"], model.weight_mask.bool())


def test_numbers_that_are_read_from_constants_become_numbers() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor([2.0, 3.0]))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale[1].item()

    graph = pj.capture(Scaled(), torch.ones(2, 3))
    assert not [node for node in graph.program.graph.nodes if "item" in str(node.target)]
    torch.testing.assert_close(graph(torch.ones(4, 3)), torch.full((4, 3), 3.0))
