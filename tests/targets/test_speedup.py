"""Speed-ups: an interval that holds the truth, no gain where it holds 1, and honesty where other work disturbs the calls."""

import numpy as np
import pytest

from penjing.targets import Latency, ThisProcess, lower, measure_together, speedup
from penjing.targets._measure import _latency


def latency(milliseconds):
    return _latency(np.asarray(milliseconds) / 1e3)


def calls(median, spread, count=400, seed=0):
    return median * np.random.default_rng(seed).lognormal(0, spread, count)


def test_the_ratio_of_calm_calls_is_that_of_the_medians_and_its_interval_is_narrow():
    found = speedup(latency(calls(2.0, 0.02)), latency(calls(0.5, 0.02, seed=1)))
    assert found.calm and found.is_gain
    assert found.value == pytest.approx(4, rel=0.01) and 3.9 < found.low < found.value < found.high < 4.1


def test_the_interval_holds_the_truth_as_often_as_it_says():
    held = 0
    for seed in range(300):
        found = speedup(latency(calls(1.5, 0.1, seed=seed)), latency(calls(1.0, 0.1, seed=seed + 1000)))
        held += found.low <= 1.5 <= found.high
    assert held / 300 >= 0.93  # 95 % are promised; 300 trials vary by 1.3 points


def test_a_drift_that_hits_both_models_alike_widens_nothing():
    drift = np.linspace(1, 1.2, 400)
    found = speedup(latency(calls(2.0, 0.01) * drift), latency(calls(1.0, 0.01, seed=1) * drift))
    assert found.calm and found.high - found.low < 0.05


def test_equal_models_are_no_gain():
    found = speedup(latency(calls(1.0, 0.05)), latency(calls(1.0, 0.05, seed=1)))
    assert found.low < 1 < found.high and not found.is_gain


def test_beside_other_work_the_fastest_hundredths_count_and_the_interval_tells():
    # A worker on the same core takes its time slices: three of four calls of the large model wait, a few of the small one.
    generator = np.random.default_rng(0)
    large = 2.4 * np.where(generator.random(400) < 0.75, 3, 1) * generator.lognormal(0, 0.01, 400)
    small = 0.4 * np.where(generator.random(400) < 0.2, 2, 1) * generator.lognormal(0, 0.01, 400)
    found = speedup(latency(large), latency(small))
    crowded = speedup(latency(np.where(generator.random(400) < 0.95, large * 3, large)), latency(small))
    assert crowded.value == pytest.approx(6, rel=0.04), "also where less than a tenth of the calls is left in peace"
    assert not found.calm and found.disturbed > 2.5
    assert found.value == pytest.approx(6, rel=0.02)
    assert found.low <= found.value < 17 < found.high


def test_other_work_that_delays_one_model_alone_is_noticed_though_its_calls_look_calm():
    generator = np.random.default_rng(0)
    large = 2.0 * generator.lognormal(0, 0.01, 400)
    small = 0.9 * np.where(generator.random(400) < 0.8, 1.2, 1) * generator.lognormal(0, 0.01, 400)
    found = speedup(latency(large), latency(small))
    assert found.disturbed < 1.3 and not found.calm
    assert found.value == pytest.approx(2.0 / 0.9, rel=0.02)
    assert found.low <= 2.0 / (0.9 * 1.2) * 1.02


def test_few_calls_give_an_interval_from_the_smallest_to_the_largest_ratio():
    before, after = (_latency(np.asarray(ms) / 1e3, 3) for ms in ([1.0, 1.02, 1.1], [1.0, 0.98, 1.15]))
    found = speedup(before, after)
    assert (found.low, found.value, found.high) == pytest.approx((1.1 / 1.15, 1, 1.02 / 0.98))
    assert not found.is_gain


def test_all_models_are_cut_into_as_many_parts_as_the_slowest_has_calls(plain, tmp_path):
    class Bench(ThisProcess):
        def times(self, jobs, runs, limit):
            return dict(zip(jobs, ([1.0] * 3, [0.1] * 90), strict=True))

    artifact = lower(plain, "torch", tmp_path / "model.pt2")
    found = measure_together({"slow": artifact, "fast": artifact}, memory=False, bench=Bench())
    assert [len(one.latency_ms.parts) for one in found.values()] == [3, 3]


def test_parts_of_different_numbers_are_not_compared():
    found = speedup(Latency(2, 2, 9, 2, (2.0, 2.0)), Latency(1, 1, 9, 1, (1.0,)))
    assert (found.low, found.value, found.high) == (2, 2, 2)
