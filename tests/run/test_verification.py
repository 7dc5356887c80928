"""What is measured of a result, and which limits it misses; runtimes and time are made up here but for the last tests."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from made_time import Time
from penjing.budget import Budget
from penjing.data import Data
from penjing.graph import capture
from penjing.pruning import prune
from penjing.run import verification
from penjing.run.baseline import Baseline
from penjing.run.verification import (
    DIFFERENCES,
    FEW,
    OriginalAndCompressed,
    layers,
    metric_on_runtime,
    shortfalls,
    verify,
)
from penjing.targets import Latency, Measurement, Parity, lower, measure_together
from penjing.tasks import R2, TOP_ONE, Classification, Likeness, Unlabelled, evaluate

ALIKE = Likeness(0.97, TOP_ONE, 0.3)


# Limits


def sides(metric=(0.9, 0.9), latency=(2.0, 2.0), size=(10_000, 10_000), **counted):
    """Returns both sides of a report, from (baseline, compressed) of each quantity."""
    return {
        side: {"metric": metric[which], "latency_ms": {"median": latency[which]}, "size_bytes": size[which]}
        | {name: both[which] for name, both in counted.items()}
        for which, side in enumerate(("baseline", "compressed"))
    }


@pytest.mark.parametrize(
    ("budget", "measured", "said"),
    [
        (Budget(latency="0.5x"), sides(latency=(2.0, 1.5)), "latency is 1.5 ms where 1 ms are allowed (0.5x)"),
        (Budget(latency="5ms"), sides(latency=(8.0, 6.0)), "latency is 6 ms where 5 ms are allowed (5ms)"),
        (Budget(latency="1us"), sides(), "latency is 2 ms where 0.001 ms are allowed (1us)"),
        (Budget(size="0.25x"), sides(size=(10_000, 2501)), "size is 2,501 bytes where 2,500 are allowed (0.25x)"),
        (Budget(size="1kB"), sides(size=(10_000, 1001)), "size is 1,001 bytes where 1,000 are allowed (1kB)"),
        (
            Budget(macs="0.5x"),
            sides(macs=(3001, 1501)),
            "the number of MACs is 1,501 where 1,500 are allowed (0.5x)",
        ),
        (
            Budget(peak_memory="1KB"),
            sides(peak_activation_bytes=(9000, 1001)),
            "the memory of activations is 1,001 bytes where 1,000 are allowed (1KB)",
        ),
        (
            Budget(largest_tensor="0.5x"),
            sides(largest_tensor_bytes=(2000, 1001)),
            "the largest tensor is 1,001 bytes where 1,000 are allowed (0.5x)",
        ),
        (
            Budget(layers=20),
            sides(layers=(40, 21)),
            "the number of layers that multiply is 21 where 20 are allowed (20)",
        ),
        (
            Budget(energy="0.5x"),
            sides(energy_estimated_mj=(0.5, 0.2513)),
            "the estimated energy is 0.251 mJ where 0.25 mJ are allowed (0.5x)",
        ),
        (Budget(drop=0.01), sides(metric=(0.92, 0.9)), "the metric's fall is 0.0200 where 0.01 is allowed"),
        (Budget(drop="1 point"), sides(metric=(0.92, 0.9)), "the metric's fall is 0.0200 where 0.01 is allowed"),
        (
            Budget(drop="2%"),
            sides(metric=(0.92, 0.9)),
            "the metric's fall is 0.0200 where 0.0184 (2% of the original's) is allowed",
        ),
        (
            Budget(drop="2%"),
            sides(metric=(-4.0, -4.1)),
            "the metric's fall is 0.1000 where 0.0800 (2% of the original's) is allowed",
        ),
        (Budget(drop="1.5 units"), sides(metric=(31, 29)), "the metric's fall is 2.0000 where 1.5 units is allowed"),
        (Budget(drop=0), sides(metric=(0.92, 0.9199)), "the metric's fall is 0.0001 where 0.0 is allowed"),
    ],
)
def test_a_limit_that_is_missed_is_told_with_the_value_that_was_reached(budget, measured, said):
    assert shortfalls(budget, measured, ALIKE) == [said]


@pytest.mark.parametrize(
    ("budget", "measured"),
    [
        (Budget(latency="0.5x"), sides(latency=(2.0, 1.0))),
        (Budget(latency="5ms"), sides(latency=(8.0, 5.0))),
        (Budget(size="0.25x"), sides(size=(10_000, 2500))),
        (Budget(size="1kB"), sides(size=(10_000, 1000))),
        (Budget(macs="0.5x", layers=1), sides(macs=(3000, 1500), layers=(2, 1))),
        (Budget(drop=0.01), sides(metric=(0.92, 0.91))),
        (Budget(drop=0), sides(metric=(0.92, 0.95))),
        (Budget(drop="100%"), sides(metric=(0.92, 0.0))),
        (Budget(drop="5%"), sides(metric=(-4.0, -4.2))),
        (Budget(latency="0.5x", size="1x", drop=0.01), sides(metric=(0.92, 0.91), latency=(2.0, 1.0))),
        (Budget(latency="1x"), sides(metric=(0.9, 0.0), size=(1, 10**9))),
        (Budget(size="1x"), sides(metric=(0.9, 0.0), latency=(1.0, 1e9))),
        (Budget(), sides(metric=(0.9, 0.0), latency=(1.0, 1e9), size=(1, 10**9))),
    ],
)
def test_a_limit_that_is_kept_to_the_last_unit_and_what_has_no_limit_are_no_shortfalls(budget, measured):
    assert shortfalls(budget, measured, ALIKE) == []


def test_each_limit_that_is_missed_has_a_line_of_its_own():
    missed = shortfalls(
        Budget(latency="0.5x", size="0.5x", drop=0.01), sides((0.9, 0.8), (2.0, 1.5), (10_000, 9_000)), ALIKE
    )
    assert [line.split(" is ")[0] for line in missed] == ["latency", "size", "the metric's fall"]


@pytest.mark.parametrize(("measure", "what"), DIFFERENCES.items())
def test_without_labels_the_drop_is_how_far_the_answers_differ_in_the_measure_s_own_words(measure, what):
    unlabelled = sides(metric=(None, None))
    assert shortfalls(Budget(drop=0.05), unlabelled, Likeness(0.9, measure, 0.0)) == [
        f"{what} is 0.1000 where 0.05 is allowed"
    ]
    assert shortfalls(Budget(drop=0.1), unlabelled, Likeness(0.9, measure, 0.0)) == []


@pytest.mark.parametrize(
    ("budget", "measured", "alike", "said"),
    [
        (Budget(drop=0.01), sides((0.9, None)), ALIKE, "metric isn't a finite number"),
        (Budget(), sides((0.9, None)), ALIKE, "metric isn't a finite number"),
        (Budget(latency="1x"), sides(latency=(2.0, math.nan)), ALIKE, "latency is nan ms"),
        (Budget(drop=0.01), sides((None, None)), replace(ALIKE, value=math.nan), "the share of answers that differ"),
        (Budget(drop=0.01), sides((None, None)), None, "no validation data"),
        (
            Budget(drop="60%"),
            sides((0.9, 0.2)),
            ALIKE,
            "fall is 0.7000 where 0.5400 (60% of the original's) is allowed",
        ),
    ],
)
def test_what_is_no_number_keeps_no_limit(budget, measured, alike, said):
    (found,) = shortfalls(budget, measured, alike)
    assert said in found


# Measuring


@pytest.fixture
def time(monkeypatch):
    made = Time()
    monkeypatch.setattr("penjing.run.clock.time", made)
    monkeypatch.setattr("penjing.run.verification.time", made)
    return made


def measurement(side, *, memory, threads=1, batch=1):
    """Returns what is measured of a made-up file: the original is twice as slow and four times as large."""
    slow = 2 if side == "baseline" else 1
    return Measurement(
        Latency(slow * 1.0, slow * 1.5, 3, slow * 0.9),
        slow**2 * 100,
        5 if memory else None,
        None,
        threads,
        batch,
        "runtime",
    )


NO_COUNTERS = {"baseline": None, "compressed": None}


@pytest.fixture
def verified(time, monkeypatch):
    """Returns a function that verifies a made-up pair on a made-up runtime, and tells what was measured and how."""
    done = {}

    def run(
        seconds=None,
        *,
        task=None,
        metric=0.9,
        reached=0.9,
        alike=ALIKE,
        parts=("validation",),
        macs=10,
        joules=NO_COUNTERS,
        **given,
    ):
        def evaluated(run, loader, task):
            time.now += 10
            return reached

        def likened(one, other, loader, task, limit=None, seen=None):
            done.update(limit=limit, compared=loader.loader, seen=seen)
            time.now += 20 if limit is None else 1
            return alike

        def measured_together(files, *, threads, batch, runs, seconds, memory, energy):
            done.update(seconds=seconds, memory=memory, energy=energy)
            time.now += seconds
            made = {side: measurement(side, memory=memory, threads=threads, batch=batch) for side in files}
            return {side: replace(one, energy_mj=joules[side] if energy else None) for side, one in made.items()}

        fakes = {
            "session": lambda file, threads: file,
            "evaluate": evaluated,
            "likeness": likened,
            "measure_together": measured_together,
            "check_parity": lambda *_: Parity(float("nan"), None),
            "integer_macs": lambda *_: 0.5,
            "layers": lambda *_: [{"name": "one"}],
            "_real_inputs": lambda *_: None,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(verification, name, fake)
        memory = {"peak_activation_bytes": 7, "largest_tensor_bytes": 5, "layers": 3}
        graphs = [
            SimpleNamespace(
                cost=lambda n=n: SimpleNamespace(
                    params=n, macs=n and macs, energy_mj=lambda batch=1: n * batch, **memory
                )
            )
            for n in (40, 10)
        ]
        file = SimpleNamespace(target="onnxruntime")
        loaders = {part: [part] for part in parts}
        data = Data(None, loaders.get("calibration"), loaders.get("validation"), task or Classification())
        original = Baseline(metric, 0.3 if metric else None, 100)
        how = {"budget": Budget(), "threads": 1, "batch": 1, "original": original} | given
        deadline = None if seconds is None else time.now + seconds
        return done | {
            "measured": verify(OriginalAndCompressed(graphs[0], file, graphs[1], file), data, deadline=deadline, **how)
        }

    return run


def test_with_time_everything_is_measured(verified):
    for seconds in (None, 1000):
        done = verified(seconds)
        assert (done["limit"], done["seconds"], done["memory"]) == (None, 20.0, True)
        assert len(done["measured"]["layers"]) == 1 and done["measured"]["warnings"] == []


def test_where_time_is_short_less_is_measured_beside_the_metric_and_says_so(verified):
    done = verified(15)
    assert (done["limit"], done["seconds"], done["memory"]) == (FEW, 1.0, False)
    assert done["seen"] is None and done["measured"]["changes"] is None
    compressed = done["measured"]["compressed"]
    assert compressed["metric"] == 0.9 and compressed["peak_memory_bytes"] is None
    assert [f"that of {FEW} samples" in line for line in done["measured"]["warnings"]] == [True]
    assert len(done["measured"]["layers"]) == 1 and verified(5)["measured"]["layers"] == []


def test_what_stands_in_for_the_metric_is_measured_in_full(verified):
    assert verified(1, metric=None, reached=None)["limit"] is None


def test_an_error_that_is_not_a_number_is_no_number_in_the_report(verified):
    assert verified()["measured"]["parity"]["max_abs_error"] is None


def test_ratios_are_the_original_over_the_result(verified):
    measured = verified(macs=8)["measured"]
    assert measured["ratios"] == {
        "latency": 2.0, "latency_interval": [2.0, 2.0], "size": 4.0, "params": 4.0, "macs": 1.0, "energy": 4.0
    }  # fmt: skip
    assert verified(macs=0)["measured"]["ratios"]["macs"] is None, "of a network that multiplies nothing"


def test_energy_is_measured_where_the_machine_tells_it_of_both_sides(verified):
    found = verified(joules={"baseline": 3.0, "compressed": 2.0})["measured"]
    told = {side: found[side]["energy_mj"] for side in NO_COUNTERS}
    assert told == {
        side: {"value": value, "source": "measured"} for side, value in (("baseline", 3), ("compressed", 2))
    }
    assert found["ratios"]["energy"] == 1.5
    assert [found[side]["energy_estimated_mj"] for side in NO_COUNTERS] == [40, 10]


@pytest.mark.parametrize("joules", [NO_COUNTERS, {"baseline": 3.0, "compressed": None}])
def test_else_the_energy_of_both_sides_is_estimated_for_the_samples_of_the_call(verified, joules):
    found = verified(joules=joules, batch=8)["measured"]
    told = {side: found[side]["energy_mj"] for side in NO_COUNTERS}
    values = (("baseline", 320), ("compressed", 80))
    assert told == {side: {"value": value, "source": "estimated"} for side, value in values}
    assert found["ratios"]["energy"] == 4 and found["compressed"]["energy_estimated_mj"] == 10, "for one sample"


def test_where_time_is_short_no_energy_is_measured(verified):
    joules = {"baseline": 3.0, "compressed": 2.0}
    assert verified(15, joules=joules)["measured"]["baseline"]["energy_mj"]["source"] == "estimated"


def test_a_disturbed_measurement_is_made_again_and_the_calmest_counts(verified, monkeypatch):
    tries = iter([(3.0, True), (1.5, False), (2.0, False)])  # (median over fastest call, whether memory is measured)
    now = [0.0]

    def disturbed(side, *, memory, threads=1, batch=1):
        if side == "baseline":
            now[0], expected = next(tries)
            assert memory == expected
        fastest = 2.0 if side == "baseline" else 1.0
        return replace(made(side, memory=memory), latency_ms=Latency(fastest * now[0], fastest * now[0], 3, fastest))

    made = measurement
    monkeypatch.setitem(globals(), "measurement", disturbed)
    measured = verified(budget=Budget(latency="0.4x"))["measured"]
    assert next(tries, None) is None
    assert measured["baseline"]["latency_ms"]["median"] == 3 and measured["baseline"]["peak_memory_bytes"] == 5
    assert measured["ratios"]["latency"] == 2 and measured["missed"] == [
        "latency is 1.5 ms where 1.2 ms are allowed (0.4x)"
    ]
    (said,) = measured["warnings"]
    assert "1.5× as long as its fastest hundredth" in said and "2.00×" in said


def test_a_limit_that_is_a_share_is_judged_by_the_speed_up_and_an_amount_by_the_time():
    sides_ = sides(latency=(8.0, 2.0))
    assert shortfalls(Budget(latency="0.3x"), sides_, ALIKE, 2.0) == ["latency is 4 ms where 2.4 ms are allowed (0.3x)"]
    assert shortfalls(Budget(latency="0.3x"), sides_, ALIKE, 4.0) == []
    assert shortfalls(Budget(latency="3ms"), sides_, ALIKE, 2.0) == []


def test_both_sides_tell_what_was_measured_of_them(verified):
    measured = verified(metric=0.9, reached=0.8)["measured"]
    assert measured["baseline"]["latency_ms"] == {"median": 2.0, "p90": 3.0, "runs": 3}
    assert [measured[side]["metric"] for side in ("baseline", "compressed")] == [0.9, 0.8]
    assert [measured[side]["size_bytes"] for side in ("baseline", "compressed")] == [400, 100]
    assert [measured[side]["params"] for side in ("baseline", "compressed")] == [40, 10]
    assert measured["target"]["name"] == "onnxruntime" and measured["integer_macs"] == 0.5


def test_threads_and_batch_are_those_that_were_asked_for(verified):
    target = verified(threads=2, batch=8)["measured"]["target"]
    assert (target["threads"], target["batch"]) == (2, 8)


def test_a_result_that_keeps_its_budget_is_met_and_one_that_misses_it_says_why(verified):
    kept = verified(budget=Budget(latency="0.5x", size="0.25x", drop=0))["measured"]
    assert kept["met"] and kept["missed"] == []
    missed = verified(budget=Budget(latency="0.4x"))["measured"]
    assert not missed["met"] and missed["missed"] == ["latency is 1 ms where 0.8 ms are allowed (0.4x)"]


def test_a_metric_that_is_not_finite_is_none_in_the_report_and_no_success(verified):
    measured = verified(reached=-math.inf)["measured"]
    assert measured["compressed"]["metric"] is None and not measured["met"]
    assert "isn't a finite number" in measured["missed"][0]


def test_an_original_that_learned_nothing_is_no_success_and_warns_of_no_drop_beside(verified):
    measured = verified(original=Baseline(0.3, 0.3, 100), reached=0.3, budget=Budget(drop="60%"))["measured"]
    assert not measured["learned"] and not measured["met"] and measured["warnings"] == []
    assert len(measured["missed"]) == 1 and measured["missed"][0].startswith("the original is no better than")


def test_a_result_that_answers_every_input_alike_is_no_success_whatever_was_allowed(verified):
    measured = verified(reached=0.3, budget=Budget(drop="70%"))["measured"]
    assert measured["learned"] and not measured["met"]
    assert len(measured["missed"]) == 1 and measured["missed"][0].startswith("what came out is no better than")
    assert len(measured["warnings"]) == 1 and "a network that answers every input alike" in measured["warnings"][0]


def test_a_drop_finer_than_one_sample_is_warned_of(verified):
    coarse = verified(original=Baseline(0.9, 0.3, 40, judged=40), budget=Budget(drop=0.01))["measured"]
    assert coarse["metric_samples"] == 40 and coarse["met"]
    assert [line.split(" is ")[0] for line in coarse["warnings"]] == ["One of 40 samples"]
    assert (
        verified(original=Baseline(0.9, 0.3, 400, judged=400), budget=Budget(drop=0.01))["measured"]["warnings"] == []
    )


def test_answers_are_compared_on_the_validation_data_or_else_on_the_calibration_data(verified):
    assert verified(parts=("calibration", "validation"))["compared"] == ["validation"]
    done = verified(parts=("calibration",), metric=None, task=Unlabelled())
    assert done["compared"] == ["calibration"] and done["measured"]["compressed"]["metric"] is None
    assert done["measured"]["parity"]["agreement_with_original"] == ALIKE.value


def test_without_any_data_nothing_is_compared(verified):
    parity = verified(parts=(), metric=None, budget=Budget(drop=0.1))["measured"]
    assert parity["parity"]["agreement_with_original"] is None and parity["missed"] == [
        "there is no validation data to measure the drop on"
    ]


# With files and a runtime


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 3)
    )
    original, folder = capture(network.eval(), torch.randn(2, 1, 6, 6)), tmp_path_factory.mktemp("pair")
    small = prune(original, 0.5)
    return OriginalAndCompressed(
        original, lower(original, "torch", folder / "a.pt2"), small, lower(small, "torch", folder / "b.pt2")
    )  # fmt: skip


def batches(count=2):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 1, 6, 6, generator=generator), torch.randint(3, (4,), generator=generator))
        for _ in range(count)
    ]


def test_the_metric_is_that_of_the_file_on_the_validation_data(pair):
    data = Data(None, None, batches(8), Classification(3))
    assert metric_on_runtime(pair.compressed_file, data, 1) == evaluate(pair.compressed, data.validation, data.task)
    assert metric_on_runtime(pair.compressed_file, replace(data, validation=None), 1) is None
    assert metric_on_runtime(pair.compressed_file, replace(data, task=Unlabelled()), 1) is None


def test_layers_are_told_before_and_after_with_their_norms_folded_into_them(pair):
    told = {layer["name"]: layer for layer in layers(pair, 1, 1)}
    assert told.keys() == {"0", "4"}
    params = {name: (layer["before"]["params"], layer["after"]["params"]) for name, layer in told.items()}
    # A convolution with its norm folded in has a weight of 3 × 3 and a bias for each channel.
    assert params == {"0": (8 * 9 + 8, 4 * 9 + 4), "4": (8 * 16 * 3 + 3, 4 * 16 * 3 + 3)}
    macs = {name: (layer["before"]["macs"], layer["after"]["macs"]) for name, layer in told.items()}
    assert macs == {"0": (8 * 9 * 16, 4 * 9 * 16), "4": (8 * 16 * 3, 4 * 16 * 3)}
    assert all(layer["op"] in ("conv2d", "linear") and "op" not in layer["before"] for layer in told.values())


def test_a_layer_that_went_has_no_after(pair):
    torch.manual_seed(0)
    other = capture(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), torch.randn(2, 1, 6, 6))
    shorter = OriginalAndCompressed(
        pair.original, pair.original_file, other, lower(other, "torch", pair.original_file.path.parent / "c")
    )
    told = {layer["name"]: layer for layer in layers(shorter, 1, 1)}
    assert told["0"]["after"] is None and told["0"]["before"]["params"] == 8 * 9 + 8
    assert told["1"]["before"] is None and told["1"]["after"]["params"] == 36 * 3 + 3


def test_a_pair_of_files_is_verified_as_a_whole(pair, monkeypatch):
    monkeypatch.setattr(verification, "RUNS", 1)
    without_memory = lambda files, **options: measure_together(files, **options | {"memory": False})  # noqa: E731
    monkeypatch.setattr(verification, "measure_together", without_memory)
    data = Data(None, None, batches(), Classification(3))
    original = Baseline(evaluate(pair.original, data.validation, data.task), 0.25, 8, judged=8)
    measured = verify(pair, data, Budget(size="0.99x"), threads=1, batch=3, original=original)
    assert measured["compressed"]["size_bytes"] == pair.compressed_file.path.stat().st_size
    assert measured["ratios"]["params"] == pair.original.cost().params / pair.compressed.cost().params
    assert measured["parity"]["max_abs_error"] < 1e-4 and measured["parity"]["top1_agreement"] == 1.0
    assert measured["target"]["batch"] == 3 and measured["integer_macs"] == 0
    assert measured["metric_samples"] == 8
    assert measured["parity"]["agreement_measure"] == TOP_ONE != R2
    changes, metrics = measured["changes"], [measured[side]["metric"] for side in ("baseline", "compressed")]
    assert changes["samples"] == 8 and [changes[side]["value"] for side in ("before", "after")] == metrics
    assert changes["changed"] == 8 - round(8 * measured["parity"]["agreement_with_original"])
    unlabelled = verify(
        pair,
        replace(data, validation=[(x,) for x, _ in batches(3)], task=Unlabelled()),
        Budget(),
        threads=1,
        batch=3,
        original=Baseline(None),
    )
    assert unlabelled["metric_samples"] == 12, "of the agreement that stands in for the metric"
