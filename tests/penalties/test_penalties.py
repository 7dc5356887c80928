"""Each penalty against its paper's formula, computed by NumPy or index by index."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.graph import Graph, capture
from penjing.penalties import find


def of(graph: Graph, name: str, tensor: str) -> tuple[float, np.ndarray]:
    """Returns a penalty's value, and its gradient at one tensor."""
    value = find(name).of(graph)()
    (slope,) = torch.autograd.grad(value, graph.tensor(tensor))
    return value.item(), slope.numpy()


def linear(weight: Tensor) -> Graph:
    """Returns a graph of one layer with this weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    graph = capture(layer, torch.randn(2, weight.shape[1]))
    with torch.no_grad():
        graph.tensor("weight").copy_(weight)
    return graph


def low_rank(rows: int, columns: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)


SHAPES = [(6, 9), (9, 6), (5, 5)]


# Rank


@pytest.mark.parametrize("shape", SHAPES)
def test_the_nuclear_norm_is_the_sum_of_the_singular_values_and_its_gradient_is_u_vt(shape: tuple[int, int]) -> None:
    weight = low_rank(*shape, rank=min(shape))
    left, values, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    value, slope = of(linear(weight), "nuclear_norm", "weight")
    assert value == pytest.approx(values.sum(), rel=1e-5)
    np.testing.assert_allclose(slope, left @ right, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_nuclear_norm_leaves_out_directions_of_which_a_weight_has_nothing(shape: tuple[int, int]) -> None:
    weight = low_rank(*shape, rank=2)
    left, values, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    value, slope = of(linear(weight), "nuclear_norm", "weight")
    assert value == pytest.approx(values[:2].sum(), rel=1e-5)
    np.testing.assert_allclose(slope, left[:, :2] @ right[:2], atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_subspace_penalty_is_half_the_squared_distance_to_the_nearest_matrix_of_low_rank(
    shape: tuple[int, int], share: float
) -> None:
    weight = low_rank(*shape, rank=min(shape))
    rank = max(1, round(share * min(shape)))
    left, values, right = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    nearest = left[:, :rank] * values[:rank] @ right[:rank]
    value, slope = of(linear(weight), f"subspace:{share}", "weight")
    assert value == pytest.approx((values[rank:] ** 2).sum() / 2, rel=1e-4, abs=1e-9)
    np.testing.assert_allclose(slope, weight.numpy() - nearest, atol=1e-5)


def test_a_weight_of_low_rank_is_left_alone_by_the_subspace_penalty() -> None:
    value, slope = of(linear(low_rank(8, 12, rank=2)), "subspace", "weight")
    assert value < 1e-9 and np.abs(slope).max() < 1e-5


def test_a_kernel_is_a_matrix_of_outputs_by_all_the_rest() -> None:
    torch.manual_seed(0)
    graph = capture(nn.Conv2d(3, 5, (2, 3)), torch.randn(2, 3, 6, 6))
    values = np.linalg.svd(graph.tensor("weight").detach().numpy().reshape(5, 18), compute_uv=False)
    assert of(graph, "nuclear_norm", "weight")[0] == pytest.approx(values.sum(), rel=1e-5)


# Orthogonality


@pytest.mark.parametrize("shape", SHAPES)
def test_the_orthogonal_penalty_is_the_distance_of_the_gram_matrix_from_the_identity(shape: tuple[int, int]) -> None:
    weight = low_rank(*shape, rank=min(shape))
    exact = weight.double().numpy()
    away = exact @ exact.T - np.eye(shape[0])
    constant = max(0, shape[0] - shape[1])  # rows beyond the columns can't be orthogonal
    value, slope = of(linear(weight), "orthogonal", "weight")
    assert value == pytest.approx((away**2).sum() - constant, rel=1e-5)
    np.testing.assert_allclose(slope, 4 * away @ exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_rows_or_columns_have_no_orthogonal_penalty(shape: tuple[int, int]) -> None:
    weight = nn.init.orthogonal_(torch.empty(shape), generator=torch.Generator().manual_seed(0))
    assert of(linear(weight), "orthogonal", "weight")[0] == pytest.approx(0, abs=1e-9)


# Channels


class Block(nn.Module):
    """Two residual layers of one group, a layer of its own between them, and a linear layer that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.inner, self.inner_norm = nn.Conv2d(4, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.outer = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + self.outer(torch.relu(self.inner_norm(self.inner(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def block() -> Graph:
    torch.manual_seed(0)
    net = Block()
    with torch.no_grad():
        for norm in (net.norm, net.inner_norm):
            norm.weight.normal_()
            norm.bias.normal_()
    return capture(net, torch.randn(2, 2, 5, 5))


def test_the_group_lasso_has_one_norm_for_all_that_makes_or_reads_a_unit(block: Graph) -> None:
    get = block.tensor
    outer = [
        (get("stem.weight")[unit], get("stem.bias")[unit], get("norm.weight")[unit], get("norm.bias")[unit],
         get("outer.weight")[unit], get("outer.bias")[unit], get("inner.weight")[:, unit], get("head.weight")[:, unit])
        for unit in range(4)
    ]  # fmt: skip
    inner = [
        (get("inner.weight")[unit], get("inner_norm.weight")[unit], get("inner_norm.bias")[unit], get("outer.weight")[:, unit])
        for unit in range(3)
    ]  # fmt: skip
    norms = [torch.cat([part.flatten() for part in unit]).norm() for unit in (*outer, *inner)]
    value, slope = of(block, "group_lasso", "inner.weight")
    assert value == pytest.approx(sum(float(norm.detach()) for norm in norms), rel=1e-5)
    # A weight between two units counts in both norms.
    columns, rows = (torch.stack(some).detach() for some in (norms[:4], norms[4:]))
    expected = get("inner.weight").detach() * (1 / rows[:, None] + 1 / columns[None])[:, :, None, None]
    np.testing.assert_allclose(slope, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_recurrent_weight_counts_once_in_its_units_norm() -> None:
    torch.manual_seed(0)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0])

    graph = capture(Recurrent(), torch.randn(2, 5, 3))
    expected = 0.0
    for unit in range(4):
        squares = float(graph.tensor("head.weight")[:, unit].square().sum())
        gates = [gate * 4 + unit for gate in range(4)]
        for name in ("lstm.weight_ih_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0"):
            squares += float(graph.tensor(name)[gates].square().sum())
        belongs = torch.zeros(16, 4, dtype=torch.bool)
        belongs[gates], belongs[:, unit] = True, True
        squares += float(graph.tensor("lstm.weight_hh_l0")[belongs].square().sum())
        expected += squares**0.5
    assert find("group_lasso").of(graph)().item() == pytest.approx(expected, rel=1e-5)


def test_a_unit_that_is_zero_stays_zero_under_the_group_lasso(block: Graph) -> None:
    with torch.no_grad():
        for name in ("inner.weight", "inner_norm.weight", "inner_norm.bias"):
            block.tensor(name)[1] = 0
        block.tensor("outer.weight")[:, 1] = 0
    _, slope = of(block, "group_lasso", "inner.weight")
    assert not slope[1].any() and slope[0].any()


def test_network_slimming_is_the_sum_of_the_scales_magnitudes(block: Graph) -> None:
    scales = [block.tensor(name).detach().numpy() for name in ("norm.weight", "inner_norm.weight")]
    value, slope = of(block, "bn_scale", "norm.weight")
    assert value == pytest.approx(sum(np.abs(scale).sum() for scale in scales), rel=1e-6)
    np.testing.assert_array_equal(slope, np.sign(scales[0]))


def test_channels_without_norms_are_pointed_to_the_group_lasso() -> None:
    graph = capture(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3))
    with pytest.raises(PenjingError, match=r"penalty='bn_scale'.*'group_lasso' needs none"):
        find("bn_scale").of(graph)


# Names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nuclear", "nuclear_norm"),
        ("subspace:2", r"penalty='subspace:2'.*share.*from 0\.0 to 1\.0"),
        ("subspace:half", "penalty='subspace:half'.*a number"),
        ("orthogonal:1", "penalty='orthogonal:1': 'orthogonal' takes no number"),
    ],
)
def test_a_name_that_means_nothing_is_refused(name: str, words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        find(name)


def test_a_number_in_the_name_is_the_penaltys_own() -> None:
    assert (find("subspace").number, find("subspace:0.5").number, find("orthogonal").number) == (0.25, 0.5, 0.0)
