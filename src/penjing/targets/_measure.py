"""Latency, size and peak memory of lowered models, interleaved so that their ratios hold on a noisy machine."""

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from penjing.checks import BATCH, COUNT, FLAG, THREADS, a, checked, mapping, number, optional
from penjing.targets._records import Artifact, Latency, Measurement
from penjing.targets._verbs import ARTIFACT, Inputs, named_inputs, random_inputs, target_of

WARM_UP_SECONDS = 0.2
BURST_SECONDS = 0.01  # timed calls of one model in a row; long enough that refilling caches is the untimed first call
LEAST_ROUNDS = 3


_OPTIONS = {"threads": THREADS, "batch": BATCH, "runs": COUNT, "seconds": number(0), "memory": FLAG}


@checked(artifact=ARTIFACT, **_OPTIONS)
def measure(
    artifact: Artifact,
    example_inputs: Inputs | None = None,
    *,
    threads: int = 1,
    batch: int = 1,
    runs: int = 200,
    seconds: float = 20.0,
    memory: bool = True,
) -> Measurement:
    """Measures one lowered model.

    Args:
        artifact: the lowered file.
        example_inputs: the inputs of a call: a single one, all in order, or all by name; random ones by default.
        threads: threads within an op; ops run one after the other.
        batch: samples per call where the batch is free.
        runs: timed calls after which measuring ends.
        seconds: time for all timed calls together after which it ends anyway.
        memory: whether to measure peak memory too, in a fresh process.
    """
    inputs = None if example_inputs is None else {"it": example_inputs}
    return measure_together(
        {"it": artifact}, threads=threads, batch=batch, runs=runs, seconds=seconds, memory=memory, inputs=inputs
    )["it"]


@checked(
    artifacts=mapping(ARTIFACT, f"a mapping from names to {ARTIFACT.says}"),
    **_OPTIONS,
    inputs=optional(a(Mapping, "a mapping from the same names to inputs")),
)
def measure_together(
    artifacts: Mapping[str, Artifact],
    *,
    threads: int = 1,
    batch: int = 1,
    runs: int = 200,
    seconds: float = 20.0,
    memory: bool = True,
    inputs: Mapping[str, Inputs] | None = None,
) -> dict[str, Measurement]:
    """Measures several lowered models side by side.

    Each is warmed up; then rounds follow in which every model, in alternating order, makes one untimed call and a short
    burst of timed ones, so that drifts of the machine hit all of them alike.

    Args:
        artifacts: what to measure, by a name of your choice.
        threads: threads within an op; ops run one after the other.
        batch: samples per call where the batch is free.
        runs: timed calls per model after which measuring ends.
        seconds: time for all timed calls together after which it ends anyway; at least three rounds are made.
        memory: whether to measure peak memory too, each in a fresh process.
        inputs: by the same names, inputs of a call (as for `measure`) instead of random ones.

    Returns:
        The measurements by name.
    """
    calls: dict[str, Callable[[], Any]] = {}
    given: dict[str, dict[str, np.ndarray]] = {}
    for name, artifact in artifacts.items():
        values = random_inputs(artifact, batch) if inputs is None else inputs[name]
        given[name] = named_inputs(artifact, values)
        calls[name] = _call(target_of(artifact).session(artifact, threads).run, given[name])
    with _no_collection():
        times = _interleave(calls, runs, seconds)
    measured = {}
    for name, artifact in artifacts.items():
        target = target_of(artifact)
        peak, own = (target.memory(artifact, threads, given[name]) if memory else None) or (None, None)
        measured[name] = Measurement(
            Latency(float(np.median(times[name])) * 1e3, float(np.percentile(times[name], 90)) * 1e3, len(times[name])),
            artifact.size_bytes,
            peak,
            own,
            threads,
            _batch(given[name]),
            f"{target.name} {target.version}",
        )
    return measured


def _batch(inputs: Mapping[str, np.ndarray]) -> int:
    """Returns the samples of a call: the size of the first input's first axis."""
    first = next(iter(inputs.values()), np.zeros(()))
    return first.shape[0] if first.ndim else 1


def _call(run: Callable[[dict[str, np.ndarray]], Any], inputs: dict[str, np.ndarray]) -> Callable[[], Any]:
    return lambda: run(inputs)


def _interleave(calls: Mapping[str, Callable[[], Any]], runs: int, seconds: float) -> dict[str, list[float]]:
    bursts = {name: max(1, min(runs, int(BURST_SECONDS / _warm_up(call)))) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or (min(map(len, times.values())) < runs and time.perf_counter() < end):
        for name in order:
            calls[name]()
            for _ in range(bursts[name]):
                start = time.perf_counter()
                calls[name]()
                times[name].append(time.perf_counter() - start)
        order.reverse()
        rounds += 1
    return times


def _warm_up(call: Callable[[], Any]) -> float:
    """Calls for a while; returns the fastest call's seconds."""
    fastest = float("inf")
    end = time.perf_counter() + WARM_UP_SECONDS
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
        rounds += 1
    return max(fastest, 1e-6)


@contextmanager
def _no_collection() -> Any:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
