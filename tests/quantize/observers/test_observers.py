import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.errors import PenjingError
from penjing.quantize import observers
from penjing.quantize.observers import Extremes, Histogram, mse, percentile


def _batches(seed=0, count=5, size=4001):  # no percentile falls between two values
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) * (k + 1) for k in range(count)]


def _fed(statistics, batches):
    for batch in batches:
        statistics.update(batch)
    return statistics


# The contract of every observer


@pytest.mark.parametrize("name", observers)
def test_a_range_lies_within_the_values_seen(name):
    entry = observers[name]
    for batches in (_batches(), [b.relu() for b in _batches()], [b.abs() + 3 for b in _batches()]):
        low, high = entry.function(_fed(entry.traits["statistics"](), batches), 255)
        values = torch.cat([*batches, torch.zeros(1)])
        assert float(values.min()) <= low < high <= float(values.max())


@pytest.mark.parametrize("name", observers)
def test_the_order_and_the_size_of_batches_dont_matter(name):
    entry, values = observers[name], torch.cat(_batches())
    ranges = []
    for batches in (_batches(), _batches()[::-1], list(values.split(777)), [values.reshape(5, 1, -1)]):
        ranges.append(entry.function(_fed(entry.traits["statistics"](), batches), 255))
    np.testing.assert_allclose(ranges, [ranges[0]] * len(ranges), rtol=2e-3)


@pytest.mark.parametrize("name", observers)
@pytest.mark.parametrize("value", [0.0, 5.0, -2.5, 1e-30, 1e30])
def test_a_constant_gives_a_finite_range_that_holds_it(name, value):
    entry = observers[name]
    low, high = entry.function(_fed(entry.traits["statistics"](), [torch.full((3, 3), value)] * 2), 255)
    assert math.isfinite(low) and math.isfinite(high)
    slack = 0.02 * abs(value)
    assert min(low, 0) <= value + slack and max(high, 0) >= value - slack


@pytest.mark.parametrize("name", observers)
def test_an_empty_batch_changes_nothing(name):
    entry = observers[name]
    with_empty = _fed(entry.traits["statistics"](), [torch.empty(0, 3), *_batches(), torch.empty(0)])
    assert entry.function(with_empty, 255) == entry.function(_fed(entry.traits["statistics"](), _batches()), 255)


def test_every_observer_names_its_paper():
    assert all(entry.source and entry.summary for entry in observers.values())


# Statistics


def test_extremes_are_numpys():
    statistics, values = _fed(Extremes(), _batches()), torch.cat(_batches()).numpy()
    assert (statistics.low, statistics.high) == (values.min(), values.max())


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), min_size=1, max_size=6))
def test_a_streamed_histogram_is_the_histogram_of_all_values(batches):
    statistics = _fed(Histogram(), [torch.tensor(batch) for batch in batches])
    values = np.concatenate([np.array(batch, np.float32) for batch in batches]).astype(np.float64)
    edges = (statistics.first + np.arange(len(statistics.counts) + 1)) * statistics.width
    bins = np.floor(values / statistics.width).astype(np.int64) - statistics.first
    assert edges[0] <= values.min() and values.max() < edges[-1]
    np.testing.assert_array_equal(statistics.counts.numpy(), np.bincount(bins, minlength=len(statistics.counts)))


def test_a_histogram_uses_at_least_half_of_its_bins():
    statistics = _fed(Histogram(), _batches())
    assert (statistics.high - statistics.low) / statistics.width >= len(statistics.counts) / 2 - 2


# Formulas


@pytest.mark.parametrize("percent", [99.99, 99.9, 99.0, 75.0])
def test_percentile_is_numpys_to_one_bin(percent):
    statistics, values = _fed(Histogram(), _batches()), torch.cat(_batches()).numpy()
    expected = np.percentile(values, [100 - percent, percent], method="inverted_cdf")
    np.testing.assert_allclose(percentile(statistics, 255, percent), expected, atol=1.01 * statistics.width)


def test_the_hundredth_percentile_is_the_maximum():
    statistics = _fed(Histogram(), _batches())
    assert percentile(statistics, 255, 100) == (statistics.low, statistics.high)


@pytest.mark.parametrize("percent", [50, 101, -1])
def test_a_percentile_that_is_none_is_refused(percent):
    with pytest.raises(PenjingError, match="percentile"):
        percentile(_fed(Histogram(), _batches()), 255, percent)


def _error(values, low, high, steps):
    """Mean squared error of rounding to steps + 1 levels over [low, high], zero among them; by definition."""
    scale = (high - low) / steps
    zero = np.rint(-low / scale)
    level = np.clip(np.rint(values / scale) + zero, 0, steps)
    return float(np.mean(((level - zero) * scale - values) ** 2))


@pytest.mark.parametrize("steps", [255, 15])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_mse_is_as_good_as_an_exhaustive_search(steps, activation):
    values = torch.cat(_batches(size=1000))
    values = torch.cat([values, torch.tensor([40.0])])  # an outlier
    values = values.relu() if activation == "relu" else values
    low, high = mse(_fed(Histogram(), [values]), steps)
    values = values.double().numpy()
    shrink = np.linspace(0.02, 1, 50)
    lows = [0.0] if activation == "relu" else values.min() * shrink
    best = min(_error(values, one, other, steps) for one in lows for other in values.max() * shrink)
    assert _error(values, low, high, steps) <= 1.1 * best
    assert _error(values, low, high, steps) <= _error(values, min(values.min(), 0), values.max(), steps) * 1.001
