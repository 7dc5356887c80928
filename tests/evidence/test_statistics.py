"""Statistics of streams of tensors, against NumPy's of all values at once."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.evidence.statistics import Extremes, Histogram


def _batches(seed=0, count=5, size=4001):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) * (k + 1) for k in range(count)]


def _fed(statistics, batches):
    for batch in batches:
        statistics.update(batch)
    return statistics


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
