"""Rank rules: what each promises."""

import math

import pytest
import torch

from penjing.factorization import k_max
from penjing.factorization.decompositions import decompositions
from penjing.factorization.decompositions import find as find_decomposition
from penjing.factorization.rank_rules import find
from penjing.factorization.rank_rules._vbmf import rank_of
from penjing.factorization.weighting import Weighting


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def multiplications(k, n, positions):
    """Of the three layers of Tucker-2 over those of the layer, per squared input channel."""
    return (k + k * k * positions + k * n) / (n * positions)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("positions", [1, 9])
@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_closed_form_saves_just_the_factor(n, positions, m):
    assert multiplications(k_max(n, positions, m), n, positions) == pytest.approx(1 / m)


def test_the_closed_form_s_value_for_the_usual_layer():
    assert k_max(n=1, positions=9, m=2) == pytest.approx(0.604, abs=1e-3)


@pytest.mark.parametrize(("outs", "ins"), [(64, 64), (128, 64)])
@pytest.mark.parametrize("m", [2, 3, 4])
def test_speedup_takes_the_closed_form_s_ranks(outs, ins, m):
    weighting = Weighting(torch.zeros(outs, ins, 3, 3, dtype=torch.float64))
    ranks = find(f"speedup:{m}").ranks(find_decomposition("tucker2"), weighting, (1, 1), 1)
    share = k_max(outs / ins, 9, m)
    assert share * ins < ins, "else one side would be at its full rank"
    assert ranks == (int(share * ins),) * 2


@pytest.mark.parametrize("name", list(decompositions))
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("times", [1.5, 3.0])
def test_speedup_saves_at_least_what_it_says_and_hardly_more(name, stride, times):
    shape, decomposition = (48, 32, 3, 3), find_decomposition(name)
    weighting = Weighting(torch.zeros(shape, dtype=torch.float64))
    ranks = find(f"speedup:{times}").ranks(decomposition, weighting, stride, 1)
    allowed = math.prod(shape) / times
    assert decomposition.cost(shape, ranks, stride) <= allowed
    more = decomposition.within(shape, tuple(rank + 1 for rank in ranks))
    assert decomposition.cost(shape, more, stride) > allowed
    rounded = find(f"speedup:{times}").ranks(decomposition, weighting, stride, 8)
    assert all(rank % 8 == 0 or rank == full for rank, full in zip(rounded, decomposition.full(shape), strict=True))


def test_energy_keeps_its_share_with_the_fewest_ranks():
    weight = drawn(12, 10)
    values = torch.linalg.svdvals(weight).square()
    for share in (0.3, 0.9, 0.99, 1.0):
        (rank,) = find(f"energy:{share}").ranks(find_decomposition("svd"), Weighting(weight), (), 1)
        kept = values.cumsum(0) / values.sum()
        assert float(kept[rank - 1]) >= share - 1e-9 and (rank == 1 or float(kept[rank - 2]) < share)
    both = find("energy:0.5").ranks(find_decomposition("tucker2"), Weighting(drawn(9, 8, 3, 3)), (1, 1), 1)
    assert 1 <= both[0] < 9 and 1 <= both[1] < 8


def test_ratio_takes_its_share_of_the_highest_rank():
    assert find("ratio:0.5").ranks(find_decomposition("svd"), Weighting(drawn(12, 10)), (), 1) == (5,)
    assert find("ratio").ranks(find_decomposition("tucker2"), Weighting(drawn(12, 10, 3, 3)), (1, 1), 1) == (5, 5)


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("noise", [0.01, 0.3])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (30, 300)])
def test_variational_bayes_finds_the_rank_beneath_noise(rank, noise, shape):
    signal = drawn(shape[0], rank, seed=1) @ drawn(rank, shape[1], seed=2)
    noisy = signal + noise * drawn(*shape, seed=3)
    assert rank_of(torch.linalg.svdvals(noisy), max(shape)) == rank
    assert find("vbmf").ranks(find_decomposition("svd"), Weighting(noisy), (), 1) == (rank,)


@pytest.mark.parametrize("shape", [(40, 60), (50, 50), (30, 300)])
def test_variational_bayes_finds_nothing_in_noise(shape):
    assert rank_of(torch.linalg.svdvals(drawn(*shape)), max(shape)) == 0
    assert rank_of(torch.zeros(5), 9) == 0
