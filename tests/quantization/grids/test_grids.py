import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.ao.quantization.observer import PerChannelMinMaxObserver

from penjing.quantization import ACTIVATION_GRIDS, affine, integers, symmetric

real = st.floats(-1e6, 1e6, width=32)
grids = st.sampled_from(list(ACTIVATION_GRIDS.values()))


def _round_trip(laid, values):
    level = np.clip(np.rint(values / laid.scale) + laid.zero_point, laid.grid.low, laid.grid.high)
    return (level - laid.zero_point) * laid.scale


@given(real, real, grids)
@example(0.0, 0.0, ACTIVATION_GRIDS["uint8"])
@example(5.0, 5.0, ACTIVATION_GRIDS["int8"])
@example(1e-30, 2e-30, ACTIVATION_GRIDS["uint8"])
def test_zero_is_on_the_grid_exactly(a, b, grid):
    laid = affine(min(a, b), max(a, b), grid)
    assert grid.low <= laid.zero_point <= grid.high
    assert laid.scale > 0 and np.float32(laid.scale) == laid.scale
    assert _round_trip(laid, np.zeros(1))[0] == 0.0


@given(real, real, grids, st.floats(0, 1))
def test_the_round_trip_error_within_the_grids_range_is_at_most_half_a_step(a, b, grid, where):
    laid = affine(min(a, b), max(a, b), grid)
    low, high = laid.range
    value = low + (high - low) * where
    assert abs(_round_trip(laid, np.array([value]))[0] - value) <= laid.scale * (0.5 + 1e-4)


@given(real, real, grids)
def test_the_grid_covers_the_range_to_half_a_step(a, b, grid):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    laid = affine(low, high, grid)
    assert laid.range[0] <= low + laid.scale * 0.501
    assert laid.range[1] >= high - laid.scale * 0.501


@pytest.mark.parametrize(("low", "high"), [(2.0, 3.0), (-3.0, -2.0), (5.0, 5.0)])
@pytest.mark.parametrize("grid", ["uint8", "int8", "uint4"])
def test_a_range_of_one_sign_is_laid_from_zero_to_its_far_end(low, high, grid):
    laid = affine(low, high, ACTIVATION_GRIDS[grid])
    assert laid.range == pytest.approx((min(low, 0.0), max(high, 0.0)), rel=1e-6)


@pytest.mark.parametrize(
    "within", [(0.0, 6.0), (0.0, math.inf), (-1.0, 1.0), (-0.3, 2.7), (0.0, 1.0), (-math.inf, 0.0)]
)
@given(real, real, grids)
def test_no_value_of_the_grid_passes_the_bounds_of_a_clip(within, a, b, grid):
    laid = affine(min(a, b), max(a, b), grid, within)
    assert laid.range[0] >= within[0]
    assert laid.range[1] <= within[1]


def test_a_clip_at_six_keeps_its_resolution():
    laid = affine(0.0, 6.0, ACTIVATION_GRIDS["uint8"], (0.0, 6.0))
    assert laid.zero_point == 0
    assert laid.scale == pytest.approx(6 / 255, rel=1e-6)


def test_zeros_alone_get_a_scale_of_ordinary_size():
    assert 1e-3 < affine(0.0, 0.0, ACTIVATION_GRIDS["uint8"]).scale < 1e-2


def test_weight_scales_are_those_of_an_independent_observer():
    weight = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    observer = PerChannelMinMaxObserver(
        ch_axis=0, dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-127, quant_max=127
    )
    observer(weight)
    expected, _ = observer.calculate_qparams()
    # torch.ao divides by half of the number of steps, which is 127 for a symmetric grid
    torch.testing.assert_close(symmetric(weight, integers("int8", symmetric=True)), expected)


def test_a_channel_of_zeros_gets_its_neighbours_scale():
    weight = torch.zeros(3, 4)
    weight[0] = 1.0
    weight[1] = 0.1
    scales = symmetric(weight, integers("int8", symmetric=True))
    assert scales[2] == scales[0]
    assert bool((symmetric(torch.zeros(3, 4), integers("int8", symmetric=True)) > 0).all())
