import collections
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.ao.quantization.observer import HistogramObserver, MovingAverageMinMaxObserver

from penjing.errors import PenjingError
from penjing.evidence.statistics import Histogram, MovingExtremes
from penjing.quantization import observers
from penjing.quantization.observers import (
    ema,
    entropy,
    find_observer,
    histogram,
    mse,
    percentile,
)


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
        low, high = entry.function(_fed(entry.statistics(), batches), 255)
        values = torch.cat([*batches, torch.zeros(1)])
        assert float(values.min()) <= low < high <= float(values.max())


@pytest.mark.parametrize("name", sorted(observers.keys() - {"ema"}))
def test_the_order_and_the_size_of_batches_dont_matter(name):
    entry, values = observers[name], torch.cat(_batches())
    ranges = []
    for batches in (_batches(), _batches()[::-1], list(values.split(777)), [values.reshape(5, 1, -1)]):
        ranges.append(entry.function(_fed(entry.statistics(), batches), 255))
    np.testing.assert_allclose(ranges, [ranges[0]] * len(ranges), rtol=2e-3)


@pytest.mark.parametrize("name", observers)
@pytest.mark.parametrize("value", [0.0, 5.0, -2.5, 1e-30, 1e30])
def test_a_constant_gives_a_finite_range_that_holds_it(name, value):
    entry = observers[name]
    low, high = entry.function(_fed(entry.statistics(), [torch.full((3, 3), value)] * 2), 255)
    assert math.isfinite(low) and math.isfinite(high)
    slack = 0.02 * abs(value)
    assert min(low, 0) <= value + slack and max(high, 0) >= value - slack


@pytest.mark.parametrize("name", observers)
def test_an_empty_batch_changes_nothing(name):
    entry = observers[name]
    with_empty = _fed(entry.statistics(), [torch.empty(0, 3), *_batches(), torch.empty(0)])
    assert entry.function(with_empty, 255) == entry.function(_fed(entry.statistics(), _batches()), 255)


def test_every_observer_names_its_paper():
    assert all(entry.source and entry.summary for entry in observers.values())


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


# Moving averages


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_ema_is_torchs_moving_average_of_extremes(momentum):
    theirs = MovingAverageMinMaxObserver(averaging_constant=1 - momentum)
    chosen = find_observer(f"ema:{momentum}")
    ours = chosen.statistics()
    for batch in _batches():
        theirs(batch)
        ours.update(batch)
    np.testing.assert_allclose(chosen.range_of(ours, 255), (float(theirs.min_val), float(theirs.max_val)), rtol=1e-5)


def test_one_odd_batch_moves_an_average_by_its_weight_alone():
    statistics = _fed(MovingExtremes(0.9), [torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 101.0])])
    assert ema(statistics, 255) == pytest.approx((-1, 11))


@pytest.mark.parametrize("momentum", ["1", "-0.1", "nan"])
def test_a_momentum_that_is_none_is_refused_before_any_data(momentum):
    with pytest.raises(PenjingError, match="momentum"):
        find_observer(f"ema:{momentum}")


# Entropy


def _divergence(values, low, high, statistics, steps):
    """KL(reference || rounded) by the definition: one bin at a time, SciPy's entropy at the end."""
    bins = np.floor(values / statistics.width).astype(np.int64)
    counts = collections.Counter(bins.tolist())
    if 0 in counts:
        counts[0] = min(counts[0], max(counts[-1], counts[1]))
    # every bin of the histogram whose middle is in the range
    inside = [
        k
        for k in range(statistics.first, statistics.first + len(statistics.counts))
        if low <= min(max((k + 0.5) * statistics.width, statistics.low), statistics.high) <= high
    ]
    p = {k: counts[k] for k in inside}
    p[inside[0]] += sum(n for k, n in counts.items() if k < inside[0])
    p[inside[-1]] += sum(n for k, n in counts.items() if k > inside[-1])
    scale = (high - low) / steps
    level = {k: min(max(round((k + 0.5) * statistics.width / scale) + round(-low / scale), 0), steps) for k in inside}
    total, shared = collections.Counter(), collections.Counter()
    for k in inside:
        total[level[k]] += counts[k]
        shared[level[k]] += p[k] > 0
    q = {k: total[level[k]] / shared[level[k]] if p[k] > 0 else 0 for k in inside}

    def smoothed(given):
        given = np.array([given[k] for k in inside], dtype=np.float64)
        empty = given <= 0
        given[~empty] = np.maximum(given[~empty] - 1e-4 * empty.sum() / (~empty).sum(), 1e-4)
        given[empty] = 1e-4
        return given

    return float(scipy.stats.entropy(smoothed(p), smoothed(q)))


def _activations(kind, count=20000):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, generator=generator)
    values[:20] *= 8  # a few far out
    made = {"two-sided": values, "one-sided": values.relu(), "lopsided": torch.where(values < 0, 0.2 * values, values)}
    return {**made, "negative": -values.relu()}[kind]


KINDS = ["two-sided", "one-sided", "lopsided", "negative"]


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_has_the_least_divergence_by_definition(kind):
    values, steps = _activations(kind), 255
    statistics = _fed(Histogram(), [values])
    low, high = entropy(statistics, steps)
    values = values.double().numpy()
    floor, ceiling = min(values.min(), 0), max(values.max(), 0)
    bounds = np.linspace(1 / 128, 1, 128)[15::16] * max(-floor, ceiling)
    others = [(max(-bound, floor), min(bound, ceiling)) for bound in bounds]
    least = min(_divergence(values, *other, statistics, steps) for other in others[1:])
    assert _divergence(values, low, high, statistics, steps) <= least * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_leaves_out_what_is_far_out_and_keeps_the_sides_that_there_are(kind):
    values = _activations(kind)
    statistics = _fed(Histogram(), [values])
    low, high = entropy(statistics, 255)
    assert high - low < 0.8 * (statistics.high - statistics.low)
    assert (low == 0) == (kind == "one-sided") and (high == 0) == (kind == "negative")
    assert float(((values < low) | (values > high)).double().mean()) < 0.01


def test_entropy_is_near_onnxruntimes_on_symmetric_values():
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    values = _activations("two-sided")
    collector = calibrate.HistogramCollector("entropy", True, 1023, 127, 99.99, "same")
    collector.collect({"x": [values.numpy()]})
    expected = float(collector.compute_collection_result()["x"][1])
    _, high = entropy(_fed(Histogram(), [values]), 254)
    assert abs(high - expected) < 0.25 * expected


def test_entropy_takes_everything_if_there_are_more_levels_than_bins():
    statistics = _fed(Histogram(), [_activations("two-sided")])
    assert entropy(statistics, 65535) == (statistics.low, statistics.high)


# Histogram


@pytest.mark.parametrize("kind", ["two-sided", "one-sided"])
def test_histogram_is_as_good_as_torchs_search(kind):
    values = _activations(kind, 400_000)
    theirs = HistogramObserver(bins=4096, dtype=torch.quint8, qscheme=torch.per_tensor_affine)
    theirs(values)
    expected = [float(end) for end in theirs._non_linear_param_search()]
    found = histogram(_fed(Histogram(), [values]), 255)
    values = values.double().numpy()
    assert _error(values, *found, 255) <= 1.05 * _error(values, *expected, 255)
    if kind == "two-sided":  # on one side, theirs stops earlier: it treats the ends differently
        np.testing.assert_allclose(found, expected, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_histogram_errs_less_than_the_whole_range_with_few_levels(kind):
    values = _activations(kind)
    statistics = _fed(Histogram(), [values])
    low, high = histogram(statistics, 15)
    whole = _error(values.double().numpy(), statistics.low, statistics.high, 15)
    assert _error(values.double().numpy(), min(low, 0), max(high, 0), 15) < 0.8 * whole
