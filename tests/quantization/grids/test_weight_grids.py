import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from penjing.errors import PenjingError
from penjing.quantization import grids
from penjing.quantization.grids import Laid, Rows, Scaled, Shared, find_grid

EXAMPLES = {
    "intN": ["int2", "int4", "int8", "int16"],
    "uintN": ["uint2", "uint4", "uint8", "uint16"],
    "power_of_two": ["power_of_two", "power_of_two:4"],
    "codebook": ["codebook:2", "codebook:16", "codebook:256"],
    "ternary": ["ternary"],
    "binary": ["binary"],
}


def _weights(rows=3, count=200, seed=0):
    return (
        torch.randn(rows, count, generator=torch.Generator().manual_seed(seed)) * torch.logspace(-2, 1, rows)[:, None]
    )


def _restored(laid, values):
    if isinstance(laid, Shared):
        return laid.table.gather(1, laid.codes.long())
    if isinstance(laid, Scaled):
        return laid.codes * laid.scale[:, None]
    return torch.fake_quantize_per_channel_affine(
        values, laid.scale, laid.zero_point.to(torch.int32), 0, laid.grid.low, laid.grid.high
    )


# Every grid


@pytest.mark.parametrize("name", [name for key in grids for name in EXAMPLES[key]])
def test_a_grid_gives_each_row_few_values_and_loses_less_than_all(name):
    values = _weights()
    grid = find_grid(name)
    laid = grid.lay(Rows(values))
    rounded = _restored(laid, values)
    few = {"ternary": 3, "binary": 2}.get(name, grid.number if name.startswith("codebook") else 2**grid.number)
    assert all(len(row.unique()) <= few for row in rounded)
    error, all_of_it = (rounded - values).square().sum(1), values.square().sum(1)
    assert bool((error < all_of_it).all())


@pytest.mark.parametrize("name", [name for key in grids if key != "binary" for name in EXAMPLES[key]])
def test_zeros_stay_exactly_zero(name):
    values = _weights()
    values[:, ::3] = 0
    rounded = _restored(find_grid(name).lay(Rows(values, zeros=True)), values)
    assert bool((rounded[:, ::3] == 0).all())


@pytest.mark.parametrize("name", [name for key in grids for name in EXAMPLES[key]])
def test_rows_of_zeros_get_finite_scales(name):
    values = torch.zeros(2, 8)
    laid = find_grid(name).lay(Rows(values))
    rounded = _restored(laid, values)
    assert float(rounded.abs().max()) <= 1e-9
    if not isinstance(laid, Shared):
        assert bool((laid.scale > 0).all()) and bool(laid.scale.isfinite().all())


@pytest.mark.parametrize("name", ["int4", "int8", "uint8", "power_of_two:8", "ternary", "binary"])
def test_scales_hold_the_layers_bias(name):
    least = torch.tensor([5.0, 0.0, 5.0])
    laid = find_grid(name).lay(Rows(_weights(), least))
    assert bool((laid.scale >= least).all())


# Integers


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_wide_integers_hold_the_largest_weight(bits):
    values = _weights()
    laid = find_grid(f"int{bits}").lay(Rows(values))
    torch.testing.assert_close(laid.scale, values.abs().amax(1) / (2 ** (bits - 1) - 1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_scales_of_few_bits_have_the_least_error_of_all_that_numpy_tries(bits):
    values = _weights()
    laid = find_grid(f"int{bits}").lay(Rows(values))
    error = (_restored(laid, values) - values).square().sum(1).numpy()
    high = 2 ** (bits - 1) - 1
    for row, least in zip(values.double().numpy(), error, strict=True):
        tried = np.abs(row).max() / high * np.linspace(0.005, 1, 400)[:, None]
        best = ((np.clip(np.rint(row / tried), -high, high) * tried - row) ** 2).sum(1).min()
        assert least <= best * 1.01


def test_unsigned_integers_cover_a_row_of_one_sign_with_all_their_steps():
    values = torch.rand(2, 500) + 0.5
    laid = find_grid("uint8").lay(Rows(values))
    assert bool((laid.zero_point == 0).all())
    assert float((_restored(laid, values) - values).abs().max()) <= float(laid.scale.max()) * 0.501


@pytest.mark.parametrize(("low", "high"), [(-0.4, 254.6), (-0.6, 254.4), (-127.4, 127.6), (-254.6, 0.4)])
def test_unsigned_integers_hold_both_ends_of_a_row_to_half_a_step(low, high):
    """A step of 1: the zero point is the nearest of the two about which the row could lie."""
    values = torch.tensor([[low, high, 0.0]])
    laid = find_grid("uint8").lay(Rows(values))
    assert float((_restored(laid, values) - values).abs().max()) <= 0.5001


def test_scales_of_powers_of_two_are_powers_of_two():
    laid = find_grid("power_of_two:8").lay(Rows(_weights()))
    assert bool((torch.log2(laid.scale) == torch.log2(laid.scale).round()).all())


@pytest.mark.parametrize("rest", [0.125, 0.25, 0.5, 0.9])
def test_a_power_of_two_is_the_best_of_the_least_that_holds_all_weights_and_its_eighth(rest):
    """One weight of 1, for which a scale of 1 is just enough, and many smaller ones, for which an eighth may be better."""
    values = np.array([1.0] + [rest] * 100)
    tried = 2.0 ** -np.arange(4)
    errors = [np.square(np.clip(np.rint(values / scale), -1, 1) * scale - values).sum() for scale in tried]
    laid = find_grid("power_of_two:2").lay(Rows(torch.tensor(values, dtype=torch.float32)[None]))
    assert float(laid.scale) == tried[int(np.argmin(errors))]


# Codebooks


@pytest.mark.parametrize("count", [2, 5, 16])
def test_shared_values_are_those_of_scikit_learns_k_means_begun_alike(count):
    values = torch.rand(1, 400, generator=torch.Generator().manual_seed(0))  # so dense that no cluster is empty
    laid = find_grid(f"codebook:{count}").lay(Rows(values))
    x = values.double().numpy().reshape(-1, 1)
    begin = np.linspace(x.min(), x.max(), count).reshape(-1, 1)
    reference = KMeans(count, init=begin, n_init=1, max_iter=1000, tol=0, algorithm="lloyd").fit(x)
    mine = float((_restored(laid, values).double() - values.double()).square().sum())
    assert mine == pytest.approx(reference.inertia_, rel=1e-3)


@given(st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=8, unique=True))
@settings(max_examples=30, deadline=None)
def test_each_weight_gets_the_nearest_shared_value(numbers):
    values = torch.tensor([numbers])
    laid = find_grid("codebook:3").lay(Rows(values))
    nearest = (values[0, :, None] - laid.table[0]).abs().amin(1)
    torch.testing.assert_close((_restored(laid, values) - values)[0].abs(), nearest, rtol=1e-5, atol=1e-6)


def test_well_separated_clusters_are_found_as_brute_force_finds_them():
    numbers = sorted([-3.0, -2.9, -2.8, 0.4, 0.5, 0.6, 5.0, 5.1])
    laid = find_grid("codebook:3").lay(Rows(torch.tensor([numbers])))
    best = min(
        (
            sum(float(np.var(part) * len(part)) for part in (numbers[:a], numbers[a:b], numbers[b:])),
            (numbers[:a], numbers[a:b], numbers[b:]),
        )
        for a, b in itertools.combinations(range(1, len(numbers)), 2)
    )
    torch.testing.assert_close(laid.table[0].sort().values, torch.tensor([float(np.mean(part)) for part in best[1]]))


def test_where_weights_were_pruned_the_first_shared_value_is_zero():
    values = _weights()
    values[:, :100] = 0
    laid = find_grid("codebook:4").lay(Rows(values, zeros=True))
    assert laid.zero_first and bool((laid.table[:, 0] == 0).all())
    assert bool((laid.table[:, 1:] != 0).all())


# Ternary and binary


def test_ternary_weights_follow_the_papers_threshold_and_scale():
    values = _weights()
    laid = find_grid("ternary").lay(Rows(values))
    for row, codes, scale in zip(values.numpy(), laid.codes.numpy(), laid.scale, strict=True):
        threshold = 0.7 * np.abs(row).mean()
        np.testing.assert_array_equal(codes, np.where(row > threshold, 1, np.where(row < -threshold, -1, 0)))
        assert float(scale) == pytest.approx(np.abs(row[np.abs(row) > threshold]).mean(), rel=1e-5)


def test_no_other_scale_of_signs_has_less_error_than_the_binary_one():
    values = _weights()
    laid = find_grid("binary").lay(Rows(values))
    best = (values * values.sign()).sum(1) / values.shape[1]  # the least-squares solution of one unknown
    torch.testing.assert_close(laid.scale, best)
    assert bool((laid.codes == values.sign()).all())


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int17", "2 to 16"),
        ("uint1", "2 to 16"),
        ("codebook", "needs a number"),
        ("codebook:257", "2 to 256"),
        ("codebook:x", "2 to 256"),
        ("ternary:3", "takes no number"),
        ("tenary", "Did you mean 'ternary'"),
        ("intN", "Unknown grid"),
        (None, "Unknown grid"),
    ],
)
def test_names_that_mean_nothing_are_errors(name, message):
    with pytest.raises(PenjingError, match=message):
        find_grid(name)


def test_integer_grids_are_laid_and_the_others_are_codes():
    for key, names in EXAMPLES.items():
        laid = find_grid(names[0]).lay(Rows(_weights()))
        assert isinstance(laid, Laid) == grids[key].integer
