"""Decompositions of weights: exact at full rank, and with the errors that theory says behind it."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penjing.errors import PenjingError
from penjing.evidence.thin_matrix import ThinMatrix
from penjing.factorization.decompositions import composed, decompositions, find
from penjing.factorization.decompositions._registry import decompose, features
from penjing.factorization.weighting import Weighting, solved

SHAPES = [(8, 6), (6, 8, 1, 1), (8, 6, 3, 3), (5, 7, 3, 2), (12, 4, 3), (4, 3, 2, 3, 2)]
FITTING = [(name, shape) for name in decompositions for shape in SHAPES if not find(name).unfit(shape)]


def drawn(shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weighted(shape, outer=True):
    """A weight, with inputs of very unlike directions, and outputs that count unlike."""
    size = math.prod(shape[1:])
    inputs = drawn((size, size), 1) @ torch.diag(torch.logspace(0, -2, size, dtype=torch.float64))
    slopes = drawn((shape[0], 2 * shape[0]), 2)
    return Weighting(drawn(shape), inputs @ inputs.T, slopes @ slopes.T if outer else None)


def test_every_decomposition_fits_some_shape_and_matrices_have_one():
    assert {name for name, _ in FITTING} == set(decompositions) and ("svd", (8, 6)) in FITTING


@pytest.mark.parametrize(("name", "shape"), FITTING)
def test_at_full_rank_it_is_exact_whatever_counts(name, shape):
    decomposition = find(name)
    full = decomposition.full(shape)
    for weighting in (Weighting(drawn(shape)), weighted(shape, outer=False), weighted(shape)):
        factors = decompose(decomposition, weighting, full)
        assert [tuple(one.weight.shape) for one in factors] == [one.weight for one in decomposition.shapes(shape, full)]
        assert (composed(factors) - weighting.weight).abs().max() < 1e-4


@pytest.mark.parametrize(("name", "shape"), FITTING)
def test_errors_that_are_looked_at_are_no_larger_than_without_looking(name, shape):
    decomposition, weighting = find(name), weighted(shape, outer=False)
    half = decomposition.within(shape, tuple(max(1, rank // 2) for rank in decomposition.full(shape)))
    looked, blind = (composed(decompose(decomposition, one, half)) for one in (weighting, Weighting(weighting.weight)))
    slack = 2e-3 if name == "cp" else 1e-12  # alternating least squares ends in a local minimum
    assert weighting.error(looked) <= weighting.error(blind) + slack


@pytest.mark.parametrize(("name", "shape"), [("svd", (8, 6)), ("svd", (8, 6, 3, 3)), ("spatial", (8, 6, 3, 3))])
def test_the_error_is_the_tail_of_the_singular_values(name, shape):
    decomposition, weight = find(name), drawn(shape)
    (values,) = decomposition.spectra(Weighting(weight))
    matrix = weight.flatten(1) if name == "svd" else weight.permute(0, 3, 1, 2).reshape(8 * 3, 6 * 3)
    assert torch.allclose(values, torch.linalg.svdvals(matrix))
    for rank in range(1, decomposition.full(shape)[0] + 1):
        difference = composed(decompose(decomposition, Weighting(weight), (rank,))) - weight
        assert float(difference.square().sum()) == pytest.approx(float(values[rank:].square().sum()), abs=1e-9)


@pytest.mark.parametrize("shape", [(8, 6), (6, 40), (8, 6, 3, 3)])
def test_on_data_svd_is_the_principal_components_of_the_outputs(shape):
    weighting = weighted(shape, outer=False)
    columns = drawn((math.prod(shape[1:]), 500), 3)
    weighting = Weighting(weighting.weight, columns @ columns.T)
    outputs = weighting.flat @ columns
    values = torch.linalg.svdvals(outputs)
    for rank in (1, 3, 5):
        found = composed(decompose(find("svd"), weighting, (rank,)))
        error = (found.flatten(1) @ columns - outputs).square().sum() / outputs.square().sum()
        tail = values[rank:].square().sum() / values.square().sum()
        assert float(error) == pytest.approx(float(tail), rel=1e-3)
        assert weighting.error(found) == pytest.approx(float(error), rel=1e-6)


def test_hooi_is_better_than_cutting_both_sides_once_and_orthogonal_to_its_error():
    weight, ranks = drawn((10, 9, 3, 3)), (4, 3)
    found = composed(decompose(find("tucker2"), Weighting(weight), ranks))
    left = torch.linalg.svd(weight.flatten(1))[0][:, :4]
    right = torch.linalg.svd(weight.movedim(1, 0).flatten(1))[0][:, :3]
    once = torch.einsum("op,pq...,iq->oi...", left, torch.einsum("op,oi...,iq->pq...", left, weight, right), right)
    assert (found - weight).norm() < (once - weight).norm()
    assert float((found * (found - weight)).sum()) == pytest.approx(0.0, abs=1e-8)


@given(
    st.tuples(st.integers(2, 6), st.integers(2, 6), st.integers(1, 3), st.integers(2, 3)), st.integers(0, 99), st.data()
)
def test_ranks_within_the_limits_give_factors_of_the_shapes_that_were_said(shape, seed, data):
    name = data.draw(st.sampled_from(sorted(decompositions)))
    decomposition = find(name)
    if decomposition.unfit(shape):
        return
    drawn_ranks = tuple(data.draw(st.integers(1, full)) for full in decomposition.full(shape))
    ranks = decomposition.within(shape, drawn_ranks)
    decomposition.check(shape, ranks, "layer")
    factors = decompose(decomposition, Weighting(drawn(shape, seed)), ranks)
    said = decomposition.shapes(shape, ranks)
    assert [(tuple(one.weight.shape), one.axes, one.groups) for one in factors] == [
        (one.weight, one.axes, one.groups) for one in said
    ]
    assert composed(factors).shape == shape and decomposition.full(shape) == decomposition.within(
        shape, decomposition.full(shape)
    )
    numbers = sum(math.prod(one.weight) for one in said)
    assert decomposition.cost(shape, ranks, (1, 1)) == numbers, "at stride 1 every weight is multiplied once"


@pytest.mark.parametrize(
    ("name", "shape", "ranks", "said"),
    [
        ("svd", (8, 6), (0,), "can't have the rank 0: the valid range is 1 to 6"),
        ("svd", (8, 6), (7,), "can't have the rank 7: the valid range is 1 to 6"),
        ("svd", (8, 6), (2, 3), "takes 1 rank in this decomposition, not 2"),
        (
            "tucker2",
            (8, 6, 3, 3),
            (9, 2),
            "can't have the ranks 9, 2: the valid range is 1 to 8, 1 to 6, in this order",
        ),
        ("tucker2", (8, 60, 1, 3), (1, 4), "1 to 8, 1 to 3"),
        ("tt", (8, 6, 3, 3), (1, 4, 2), "1 to 6, 1 to 3, 1 to 8"),
        ("cp", (8, 6, 3, 3), (55,), "1 to 54"),
    ],
)
def test_a_rank_out_of_its_range_is_refused_with_the_range(name, shape, ranks, said):
    with pytest.raises(PenjingError, match=f"layer {said}" if said.startswith(("can", "takes")) else said):
        find(name).check(shape, ranks, "layer")


def test_cp_that_grows_without_bound_says_so():
    # The limit of rank-2 tensors that needs rank 3: with rank 2 the components grow, and cancel each other.
    a, b = torch.eye(2, dtype=torch.float64)
    parts = [(a, a, b), (a, b, a), (b, a, a)]
    tensor = sum(torch.einsum("i,j,k->ijk", *part) for part in parts)
    with pytest.MonkeyPatch.context() as patch:
        module = __import__("penjing.factorization.decompositions._cp", fromlist=["_cp"])
        for name, value in {"WORST": 3.0, "SWEEPS": 2000, "ENOUGH": 1e-9}.items():
            patch.setattr(module, name, value)
        with pytest.raises(PenjingError, match=r"cp doesn't converge at rank 2.*tucker2"):
            decompose(find("cp"), Weighting(tensor), (2,))


def test_a_weight_of_zeros_is_decomposed_into_zeros():
    shape, zeros, gram = (4, 3, 3, 3), torch.zeros(4, 3, 3, 3).double(), torch.zeros(27, 27).double()
    for name in decompositions:
        decomposition = find(name)
        ranks = decomposition.within(shape, tuple(2 for _ in decomposition.full(shape)))
        for weighting in (Weighting(zeros), Weighting(zeros, gram)):
            assert float(composed(decompose(decomposition, weighting, ranks)).abs().max()) < 1e-12


def test_marginals_and_features_are_what_the_columns_hold():
    weight, columns = drawn((2, 3, 2, 3)), drawn((18, 50), 4)
    weighting = Weighting(weight, columns @ columns.T)
    by_axis = columns.reshape(3, 2, 3, 50)
    channels = sum(by_axis[:, a, b] @ by_axis[:, a, b].T for a, b in itertools.product(range(2), range(3))) / 6
    assert torch.allclose(weighting.marginal(0), channels, rtol=1e-4)
    rows = sum(by_axis[:, :, b].reshape(6, 50) @ by_axis[:, :, b].reshape(6, 50).T for b in range(3)) / 3
    assert torch.allclose(weighting.marginal(0, 1), rows, rtol=1e-4, atol=1e-4)
    body = drawn((4, 3, 2, 1), 5)
    seen = features(body, 1, 3).flatten(1) @ columns
    direct = torch.einsum("ria,iabn->rbn", body.squeeze(-1), by_axis).reshape(12, 50)
    assert torch.allclose(seen, direct)


def test_a_thin_matrix_is_what_it_is_written_out():
    left, right, rows = drawn((24, 5)), drawn((24, 5), 1), drawn((3, 24), 2)
    thin = ThinMatrix(left, right).with_ridge(0.5)
    whole = left @ right.T + 0.5 * torch.eye(24, dtype=torch.float64)
    assert torch.allclose(rows @ thin, rows @ whole) and torch.allclose(thin.diagonal(), whole.diagonal())
    assert torch.allclose(solved(rows, thin) @ whole, rows) and torch.allclose(solved(rows, whole) @ whole, rows)
    weight = drawn((2, 4, 2, 3))
    for axes in ((0,), (0, 1), (1, 2)):
        squares = Weighting(weight, left @ left.T)
        assert torch.allclose(Weighting(weight, ThinMatrix(left, left)).marginal(*axes), squares.marginal(*axes))


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (8, 6, 3, 3)])
@pytest.mark.parametrize("outer", [False, True])
def test_every_decomposition_of_a_thin_gram_matrix_is_that_of_the_one_written_out(shape, outer):
    columns = drawn((math.prod(shape[1:]), 7), 3)
    weight, slopes = drawn(shape), weighted(shape).outer if outer else None
    thin, whole = (Weighting(weight, gram, slopes) for gram in (ThinMatrix(columns, columns), columns @ columns.T))
    for name in decompositions:
        decomposition = find(name)
        if decomposition.unfit(shape):
            continue
        ranks = decomposition.within(shape, tuple(max(1, full // 2) for full in decomposition.full(shape)))
        one, other = (composed(decompose(decomposition, weighting, ranks)) for weighting in (thin, whole))
        assert thin.error(one) == pytest.approx(whole.error(other), abs=1e-7) and whole.error(one) < 0.5
        for found, said in zip(decomposition.spectra(thin) or (), decomposition.spectra(whole) or (), strict=True):
            assert torch.allclose(found, said, atol=1e-5)
