import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from penjing.errors import PenjingError
from penjing.targets import FreshProcess, measure, measure_together


def test_two_models_are_measured_side_by_side(lowered):
    found = measure_together({"a": lowered, "b": lowered}, runs=20, seconds=60, memory=False)
    for measurement in found.values():
        assert measurement.latency_ms.runs >= 20
        assert 0 < measurement.latency_ms.median <= measurement.latency_ms.p90
        assert measurement.peak_memory_bytes is None
        assert measurement.size_bytes == lowered.path.stat().st_size


def test_a_batch_is_what_the_calls_are_made_with_and_is_reported(lowered):
    bench = Elsewhere()
    assert [measure(lowered, batch=batch, bench=bench).batch for batch in (1, 32)] == [1, 32]
    assert [shapes for _, _, shapes, _ in bench.asked] == [{"image": (batch, 3, 32, 32)} for batch in (1, 32)]


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


class Elsewhere:
    """A bench as one on another device would be: it gets sets of files and arrays, and gives numbers."""

    def __init__(self):
        self.asked = []

    def times(self, jobs, runs, limit):
        for name, job in jobs.items():
            files = [file.read_bytes() for file in job.artifact.files]
            self.asked.append((name, sum(map(len, files)), {k: v.shape for k, v in job.inputs.items()}, job.threads))
        return json.loads(json.dumps({name: [0.001, 0.002, 0.003] for name in jobs}))

    def memory(self, job):
        return 2000, 1000

    def runtime(self, target):
        return f"{target} 9.9 on a board"


def test_a_bench_gets_files_and_arrays_and_gives_numbers(lowered):
    bench = Elsewhere()
    measured = measure_together({"a": lowered, "b": lowered}, threads=2, batch=3, bench=bench)
    assert bench.asked == [(name, lowered.size_bytes, {"image": (3, 3, 32, 32)}, 2) for name in ("a", "b")]
    assert (measured["a"].latency_ms.median, measured["a"].latency_ms.runs) == (2.0, 3)
    assert measured["b"].latency_ms.p90 == pytest.approx(np.percentile([1, 2, 3], 90))
    assert (measured["a"].peak_memory_bytes, measured["a"].model_memory_bytes) == (2000, 1000)
    assert measured["a"].runtime == "onnxruntime 9.9 on a board" and measured["a"].batch == 3


def test_a_fresh_process_takes_turns_too(lowered):
    found = measure_together({"a": lowered, "b": lowered}, runs=5, seconds=60, memory=False, bench=FreshProcess())
    for measurement in found.values():
        assert measurement.latency_ms.runs >= 5 and 0 < measurement.latency_ms.median <= measurement.latency_ms.p90
        assert measurement.size_bytes == lowered.size_bytes and measurement.runtime.startswith("onnxruntime ")


def test_a_fresh_process_that_fails_says_why(lowered, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    broken = replace(lowered, path=tmp_path / "broken.onnx", files=(tmp_path / "broken.onnx",))
    with pytest.raises(PenjingError, match=r"The process that measures latency failed: .*can't load"):
        measure(broken, memory=False, bench=FreshProcess())


def test_what_is_no_bench_is_refused(lowered):
    with pytest.raises(PenjingError, match="bench='ssh': it must be a bench such as"):
        measure(lowered, bench="ssh")


class WithMeter(Elsewhere):
    """A bench that measures energy, too."""

    def __init__(self, joules):
        super().__init__()
        self.joules = joules

    def energies(self, jobs):
        return self.joules and {name: self.joules for name in jobs}


@pytest.mark.parametrize(("joules", "told"), [(3.5, 3.5), (None, None), (-0.1, None)])
def test_energy_is_what_the_bench_tells_and_none_where_it_cannot_or_other_work_spoilt_it(lowered, joules, told):
    assert measure(lowered, bench=WithMeter(joules), energy=True).energy_mj == told


def test_energy_is_measured_where_it_is_asked_for_and_the_bench_has_a_meter(lowered):
    assert measure(lowered, bench=WithMeter(3.5)).energy_mj is None
    assert measure(lowered, bench=Elsewhere(), energy=True).energy_mj is None
