"""Verifies the result: runs the written file in its runtime on the validation data, side by side with the original."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from penjing.budget import LIMITED, Budget
from penjing.data import Data
from penjing.explanation import Witness, noise_of_layers
from penjing.graph import Cost, Graph, fold_batch_norms
from penjing.loaders import first
from penjing.run.baseline import Baseline, Listening, collapsed, nothing_learned, too_coarse, too_generous
from penjing.run.clock import seconds_until
from penjing.run.samples import samples_of
from penjing.targets import (
    Artifact,
    Measurement,
    Speedup,
    check_parity,
    find_target,
    integer_macs,
    layers_of,
    machine_of,
    measure_together,
    profile,
    session,
    speedup,
)
from penjing.tasks import DECISIONS, EQUAL, R2, TOP_ONE, Likeness, answers_of, each_input, evaluate, likeness

RUNS = 1000  # timed calls of each file, after which timing ends
SECONDS = 20.0  # seconds for timing both files, after which timing ends anyway
TRIES = 3  # measurements of latency, at most, where other work disturbs them
LEAST_SECONDS = 1.0  # the same, where the deadline leaves less
PROFILING = 10.0  # seconds for measuring peak memory and the layers' times
MEASURING_ENERGY = 6.0  # seconds for measuring the energy of both files, where the machine tells it
PARITY_SAMPLES = 64  # samples on which the file's outputs are compared with the graph's
FEW = 256  # samples for agreement where time is short


@dataclass(frozen=True)
class OriginalAndCompressed:
    """The original and the compressed model: their graphs and their files."""

    original: Graph
    original_file: Artifact
    compressed: Graph
    compressed_file: Artifact


def metric_on_runtime(artifact: Artifact, data: Data, threads: int) -> float | None:
    """Returns the task's metric of a lowered file on the validation data; None without labels or data.

    A metric of NaN counts as -infinity; see `evaluate`.
    """
    if data.validation is None:
        return None
    return evaluate(session(artifact, threads), data.validation, data.task)


def verify(
    pair: OriginalAndCompressed,
    data: Data,
    budget: Budget,
    *,
    threads: int,
    batch: int,
    original: Baseline,
    trained: bool = True,
    deadline: float | None = None,
) -> dict[str, Any]:
    """Measures both files side by side and returns the measured part of `report.json`.

    Args:
        pair: the graphs and the files of both sides.
        data: the validation set gives the metric; without labels, agreement with the original replaces the metric.
        budget: the limits that the user asked for.
        threads: threads within an op.
        batch: samples per call when timing.
        original: the baseline of the original's file from an earlier stage; it is the same in every run.
        trained: whether the original is known to have trained weights; see `nothing_learned`.
        deadline: a value of `time.monotonic()`. Where it is near, latency is measured on fewer calls, agreement on
            fewer samples if there is a metric, and peak memory and the layers' times not at all. The metric, or the
            agreement that replaces it, is always measured in full.
    """
    began = time.monotonic()
    metrics = {"baseline": original.metric, "compressed": metric_on_runtime(pair.compressed_file, data, threads)}
    judging = time.monotonic() - began
    # Agreement runs both networks, and the original is the slower one; beside a metric it is only additional information.
    pressed = original.metric is not None and 3 * judging + PROFILING > seconds_until(deadline)
    alike, judged, witness = None, original.judged, Witness(data)
    if data.validation is not None or data.calibration is not None:
        images = data.validation if data.validation is not None else data.calibration
        assert images is not None
        heard = Listening(images, data.task)
        alike = likeness(
            session(pair.original_file, threads), session(pair.compressed_file, threads), heard, data.task,
            limit=FEW if pressed else None, seen=None if pressed else witness,
        )  # fmt: skip
        judged = heard.samples if original.metric is None else judged
    measured, faster = _measured(pair, threads, batch, deadline)
    costs = {"baseline": pair.original.cost(), "compressed": pair.compressed.cost()}
    energy = _energy(measured, costs)
    sides = {name: _side(measured[name], costs[name], metrics[name], energy[name]) for name in measured}
    missed = shortfalls(budget, sides, alike, faster.value)
    unlearned = nothing_learned(original, alike, data.task, trained)
    lost = collapsed(original.constant, sides["compressed"]["metric"], alike, data.task)
    missed += [reason for reason in (unlearned or lost,) if reason is not None]
    allowed = budget.drop_limit(original.metric)
    generous = None if unlearned is not None else too_generous(original, alike, allowed, data.task)
    by_share = answers_of(data.task) != "values"  # where a sample is right or wrong
    coarse = None if unlearned is not None or not by_share else too_coarse(original, allowed, samples_of(data))
    real = _real_inputs(data, pair.compressed)
    flat = None if real is None else pair.compressed.signature.flatten(real, {})
    parity = check_parity(pair.compressed_file, pair.compressed, flat)
    target = find_target(pair.compressed_file.target)
    return {
        "target": {
            "name": target.name,
            "version": target.version,
            "device": machine_of(target.name).processor,
            "threads": threads,
            "batch": measured["compressed"].batch,
        },
        **sides,
        "ratios": {
            "latency": faster.value,
            "latency_interval": [faster.low, faster.high],
            "size": measured["baseline"].size_bytes / measured["compressed"].size_bytes,
            "params": costs["baseline"].params / costs["compressed"].params,
            "macs": _ratio(costs["baseline"].macs, costs["compressed"].macs),
            "energy": _ratio(energy["baseline"]["value"], energy["compressed"]["value"]),
        },
        "parity": {
            "max_abs_error": _finite(parity.max_abs_error),
            "top1_agreement": parity.top1_agreement,
            "agreement_with_original": None if alike is None else alike.value,
            "agreement_measure": None if alike is None else alike.measure,
            "agreement_output": None if alike is None else alike.output,
        },
        "integer_macs": integer_macs(pair.compressed_file, costs["compressed"]),
        "metric_name": data.task.metric_name,
        "lower_is_better": bool(getattr(data.task, "lower_is_better", False)),
        "metric_samples": judged,
        "constant_metric": original.constant,
        "learned": unlearned is None,
        "met": not missed,
        "missed": missed,
        "warnings": [
            *(warning for warning in (generous, coarse, _disturbed(faster)) if warning is not None),
            *([f"The time was short: agreement with the original is that of {FEW} samples."] if pressed else []),
        ],
        "layers": layers(pair, threads, batch) if seconds_until(deadline) > 0 else [],
        "changes": None if alike is None or pressed else _changes(pair, data, witness),
    }


def _changes(pair: OriginalAndCompressed, data: Data, witness: Witness) -> dict[str, Any]:
    """Returns what changed in the answers, which were compared already, and in the layers."""
    inputs = _real_inputs(data, pair.compressed)
    noise = () if inputs is None else noise_of_layers(pair.original, pair.compressed, inputs)
    return witness.explanation(noise).to_dict()


def _measured(
    pair: OriginalAndCompressed, threads: int, batch: int, deadline: float | None
) -> tuple[dict[str, Measurement], Speedup]:
    """Measures both files in turns, again where other work disturbed the calls; the calmest measurement counts."""
    tries: list[tuple[dict[str, Measurement], Speedup]] = []
    while not tries or (not tries[-1][1].calm and len(tries) < TRIES and seconds_until(deadline) > SECONDS + PROFILING):
        found = measure_together(
            {"baseline": pair.original_file, "compressed": pair.compressed_file},
            threads=threads,
            batch=batch,
            runs=RUNS,
            seconds=max(LEAST_SECONDS, min(SECONDS, seconds_until(deadline) - PROFILING)),
            memory=not tries and seconds_until(deadline) > PROFILING,
            energy=not tries and seconds_until(deadline) > PROFILING + MEASURING_ENERGY,
        )
        tries.append((found, speedup(found["baseline"].latency_ms, found["compressed"].latency_ms)))
    calmest, faster = min(tries, key=lambda one: (not one[1].calm, one[1].disturbed))
    first_try = tries[0][0]
    return {
        name: replace(
            one,
            peak_memory_bytes=first_try[name].peak_memory_bytes,
            model_memory_bytes=first_try[name].model_memory_bytes,
            energy_mj=first_try[name].energy_mj,
        )
        for name, one in calmest.items()
    }, faster


def _disturbed(faster: Speedup) -> str | None:
    """Says that other work disturbed the measurement; None where it didn't."""
    if faster.calm:
        return None
    return (
        f"Other work on the machine disturbed the measurement of latency: half of a model's calls took {faster.disturbed:.1f}× "
        "as long as its fastest hundredth, or longer. So the speed-up is that of the fastest hundredths, "
        f"{faster.value:.2f}×; parts of the measurement give {faster.low:.2f}× to {faster.high:.2f}×. On a quiet machine, "
        "`penjing verify` measures again."
    )


def shortfalls(
    budget: Budget, sides: Mapping[str, Any], alike: Likeness | None, faster: float | None = None
) -> list[str]:
    """Says, for each limit of the budget that the compressed side misses, which value it reached.

    A limit whose value couldn't be measured counts as missed; a metric that isn't a finite number is always reported.

    Args:
        budget: the limits.
        sides: both sides of a report.
        alike: how alike the answers are.
        faster: how many times faster the compressed side is, for a limit on latency that is a share of the original's; by
            default the ratio of the sides' medians.
    """
    before, after = sides["baseline"], sides["compressed"]
    drop = budget.drop_limit(before["metric"])
    found = []
    for name, limit in budget.limits().items():
        amount, least = (READ[name](side) for side in (after, before))
        if name == "latency" and limit.relative and faster is not None:
            amount = least / faster
        allowed = limit.of(least)
        if not amount <= allowed:
            told, shown = LIMITED[name], getattr(budget, name)
            allows = told.shown.format(allowed) if told.fractional else f"{int(allowed):,}"
            found.append(f"{told.title} is {told.shown.format(amount)} where {allows} are allowed ({shown})")
    if before["metric"] is not None and after["metric"] is None:
        found.append("the compressed file's metric isn't a finite number")
    elif drop is not None:
        fall = None if alike is None else 1 - alike.value
        what = "" if alike is None else DIFFERENCES[alike.measure]
        if before["metric"] is not None and after["metric"] is not None:
            fall, what = before["metric"] - after["metric"], "the metric's fall"
        if fall is None:
            found.append("there is no validation data to measure the drop on")
        elif not fall <= drop + 1e-9:  # 0.92 − 0.91 is a hair more than 0.01 in floating point
            found.append(f"{what} is {fall:.4f} where {_allowed(budget, drop)} is allowed")
    return found


def _allowed(budget: Budget, drop: float) -> str:
    """Returns the allowed fall in words: as it was asked for, and what that means where it is relative to the original's."""
    return f"{drop:.4f} ({budget.drop} of the original's)" if str(budget.drop).endswith("%") else str(budget.drop)


# Where a side of the report holds what a budget limits.
READ: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "latency": lambda side: float(side["latency_ms"]["median"]),
    "size": lambda side: float(side["size_bytes"]),
    "macs": lambda side: float(side["macs"]),
    "peak_memory": lambda side: float(side["peak_activation_bytes"]),
    "largest_tensor": lambda side: float(side["largest_tensor_bytes"]),
    "layers": lambda side: float(side["layers"]),
    "energy": lambda side: float(side["energy_estimated_mj"]),
}

# Names of 1 - likeness, by the measure of likeness.
DIFFERENCES = {
    TOP_ONE: "the share of answers that differ from the original's",
    DECISIONS: "the share of decisions (at 0.5) that differ from the original's",
    R2: "the share of the variance of the original's outputs that is lost (1 - R²)",
    EQUAL: "the share of values that differ from the original's",
}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _energy(measured: Mapping[str, Measurement], costs: Mapping[str, Cost]) -> dict[str, dict[str, Any]]:
    """Returns the energy of a call of each side: measured where that of both is, else estimated for both."""
    joules = {name: one.energy_mj for name, one in measured.items()}
    if None not in joules.values():
        return {name: {"value": value, "source": "measured"} for name, value in joules.items()}
    return {name: {"value": costs[name].energy_mj(one.batch), "source": "estimated"} for name, one in measured.items()}


def _side(measured: Measurement, cost: Cost, metric: float | None, energy: dict[str, Any]) -> dict[str, Any]:
    return {
        "metric": _finite(metric),
        "latency_ms": {
            "median": measured.latency_ms.median,
            "p90": measured.latency_ms.p90,
            "runs": measured.latency_ms.runs,
        },
        "size_bytes": measured.size_bytes,
        "params": cost.params,
        "macs": cost.macs,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "model_memory_bytes": measured.model_memory_bytes,
        "peak_activation_bytes": cost.peak_activation_bytes,
        "largest_tensor_bytes": cost.largest_tensor_bytes,
        "layers": cost.layers,
        "energy_mj": energy,
        "energy_estimated_mj": cost.energy_mj(),
    }


def _ratio(before: float, after: float) -> float | None:
    return before / after if after else None


def _real_inputs(data: Data, graph: Graph) -> tuple[Any, ...] | None:
    """Returns one batch of real inputs, cut to the graph's batch size if that is fixed; None if there are none."""
    for loader in (data.validation, data.calibration):
        if loader is not None:
            inputs, _ = data.task.split(first(loader))
            return each_input(inputs, itemgetter(slice(graph.batch or PARITY_SAMPLES)))
    return None


def layers(pair: OriginalAndCompressed, threads: int, batch: int) -> list[dict[str, Any]]:
    """Returns the cost and the time, before and after, of each module that multiplies or holds parameters.

    A batch norm counts to the convolution into which it is folded, as in the files.
    """
    before = layers_of(fold_batch_norms(pair.original).cost(), profile(pair.original_file, threads, batch))
    after = layers_of(fold_batch_norms(pair.compressed).cost(), profile(pair.compressed_file, threads, batch))
    return [
        {
            "name": name,
            "op": (before.get(name) or after[name])["op"],
            "before": _without_op(before.get(name)),
            "after": _without_op(after.get(name)),
        }
        for name in dict.fromkeys([*before, *after])
    ]


def _without_op(side: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if side is None else {key: value for key, value in side.items() if key != "op"}
