import pytest
import torch

from penjing.errors import PenjingError
from penjing.targets import measure, measure_together


def test_two_models_are_measured_side_by_side(lowered):
    found = measure_together({"a": lowered, "b": lowered}, runs=20, seconds=2, memory=False)
    for measurement in found.values():
        assert measurement.latency_ms.runs >= 20
        assert 0 < measurement.latency_ms.median <= measurement.latency_ms.p90
        assert measurement.peak_memory_bytes is None
        assert measurement.size_bytes == lowered.path.stat().st_size
    ratio = found["a"].latency_ms.median / found["b"].latency_ms.median
    assert 0.5 < ratio < 2


def test_a_larger_batch_takes_longer_and_is_reported(lowered):
    one, many = (measure(lowered, batch=batch, runs=10, seconds=1, memory=False) for batch in (1, 32))
    assert (one.batch, many.batch) == (1, 32)
    assert many.latency_ms.median > 3 * one.latency_ms.median


def test_peak_memory_is_that_of_a_process_without_torch(lowered):
    measurement = measure(lowered, runs=1, seconds=0)
    assert 10e6 < measurement.peak_memory_bytes < 150e6
    assert 0 < measurement.model_memory_bytes < measurement.peak_memory_bytes


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: x.numpy(), lambda x: [x], lambda x: {"image": x}])
def test_inputs_come_bare_in_order_or_by_name_and_give_the_batch(lowered, wrap):
    inputs = wrap(torch.randn(5, 3, 32, 32))
    assert measure(lowered, inputs, runs=1, seconds=0, memory=False).batch == 5


def test_inputs_of_an_unknown_name_are_refused(lowered):
    with pytest.raises(PenjingError, match="takes the inputs image, not picture"):
        measure(lowered, {"picture": torch.randn(5, 3, 32, 32)})
