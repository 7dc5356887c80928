"""Latency, size, peak memory and energy of lowered models, interleaved so that their ratios hold on a noisy machine."""

from collections.abc import Mapping, Sequence

import numpy as np

from penjing.checks import BATCH, COUNT, FLAG, THREADS, a, checked, mapping, number, optional
from penjing.errors import PenjingError
from penjing.targets._records import Artifact, Latency, Measurement
from penjing.targets._registry import find_target
from penjing.targets._verbs import ARTIFACT, Inputs, named_inputs, random_inputs
from penjing.targets.bench import Bench, EnergyMeter, Job, ThisProcess

PARTS = 20  # successive parts of a measurement, each of which gives a speed-up; fewer where a model has fewer calls
_OPTIONS = {
    "threads": THREADS,
    "batch": BATCH,
    "runs": COUNT,
    "seconds": number(0),
    "memory": FLAG,
    "energy": FLAG,
    "bench": optional(a(Bench, "a bench such as penjing.targets.FreshProcess()")),
}


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
    energy: bool = False,
    bench: Bench | None = None,
) -> Measurement:
    """Measures latency, size and peak memory of one lowered model.

    Args:
        artifact: the lowered file.
        example_inputs: the inputs of a call: a single one, all in order, or all by name; random ones by default.
        threads: threads within an op; ops run one after the other.
        batch: samples per call where the batch is free.
        runs: timed calls after which measuring ends.
        seconds: time after which measuring ends anyway; at least three rounds of calls are timed.
        memory: whether to measure peak memory too, in a fresh process.
        energy: whether to measure energy too, in some four seconds more, where the bench has the processor's counters.
        bench: the place where the model is measured; by default this process, or the device of the artifact's target.
    """
    inputs = None if example_inputs is None else {"model": example_inputs}
    return measure_together(
        {"model": artifact}, threads=threads, batch=batch, runs=runs, seconds=seconds, memory=memory, energy=energy,
        inputs=inputs, bench=bench,
    )["model"]  # fmt: skip


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
    energy: bool = False,
    inputs: Mapping[str, Inputs] | None = None,
    bench: Bench | None = None,
) -> dict[str, Measurement]:
    """Measures several lowered models side by side.

    Each is warmed up; then rounds follow in which every model, in alternating order, makes one untimed call and a short
    burst of timed ones, so that drifts of the machine hit all of them alike.

    Args:
        artifacts: the lowered models, by names of your choice.
        threads: threads within an op; ops run one after the other.
        batch: samples per call where the batch is free.
        runs: timed calls per model after which measuring ends.
        seconds: time, for all models together, after which measuring ends anyway; at least three rounds are made.
        memory: whether to measure the peak memory of each model too, each in a fresh process.
        energy: whether to measure the energy of a call of each model too, where the bench has the processor's counters. The
            models and rest take turns, each for two seconds; where other work spoils it, so that a model takes no more than
            rest, no energy is given.
        inputs: the inputs of each model's call, by the same names and in the forms that `measure` takes; random ones by
            default.
        bench: the place where the models are measured; by default this process, or the device of the artifacts' target.

    Returns:
        The measurements by name.

    Raises:
        PenjingError: inputs don't fit, the models are for different devices, or a device can't be reached.
    """
    bench = bench or bench_of(artifacts)
    jobs = {}
    for name, artifact in artifacts.items():
        given = random_inputs(artifact, batch) if inputs is None else inputs[name]
        jobs[name] = Job(artifact, named_inputs(artifact, given), threads)
    times = bench.times(jobs, runs, seconds)
    joules = (bench.energies(jobs) if energy and isinstance(bench, EnergyMeter) else None) or {}
    if min(joules.values(), default=0.0) <= 0:
        joules = {}
    parts = min((PARTS, *map(len, times.values())))
    return {
        name: measurement_of(
            job,
            times[name],
            bench.memory(job) if memory else None,
            bench.runtime(job.artifact.target),
            parts,
            joules.get(name),
        )
        for name, job in jobs.items()
    }


def measurement_of(
    job: Job,
    seconds: Sequence[float],
    memory: tuple[int, int] | None,
    runtime: str,
    parts: int | None = None,
    millijoules: float | None = None,
) -> Measurement:
    """Returns the measurement of one job.

    Args:
        job: the call that was measured.
        seconds: of each timed call.
        memory: peak bytes, and the model's part of them; None if they weren't measured.
        runtime: its name and version.
        parts: into how many parts the calls are cut; as many as can be by default.
        millijoules: of a call; None if they weren't measured.
    """
    peak, own = memory or (None, None)
    latency = _latency(seconds, parts or min(PARTS, len(seconds)))
    return Measurement(
        latency, job.artifact.size_bytes, peak, own, job.threads, _batch(job.inputs), runtime, millijoules
    )


def bench_of(artifacts: Mapping[str, Artifact]) -> Bench:
    """Returns the place where models are measured unless another is asked for.

    Raises:
        PenjingError: they are for different places, and so can't take turns.
    """
    benches = {artifact.target: find_target(artifact.target).bench for artifact in artifacts.values()}
    first = next(iter(benches.values()), None)
    if any(bench is not first for bench in benches.values()):
        raise PenjingError(
            f"Models for {' and '.join(benches)} can't be measured in turns, since they don't run in one place: measure those of "
            "each target by a call of its own."
        )
    return first or ThisProcess()


def _latency(seconds: Sequence[float], parts: int = PARTS) -> Latency:
    """Returns the latency of timed calls, with the medians of so many successive parts of them."""
    p1, p10, median, p90 = (float(found) * 1e3 for found in np.percentile(seconds, (1, 10, 50, 90)))
    medians = tuple(float(np.median(part)) * 1e3 for part in np.array_split(np.asarray(seconds), parts))
    return Latency(median, p90, len(seconds), p10, medians, p1)


def _batch(inputs: Mapping[str, np.ndarray]) -> int:
    """Returns the samples of a call: the size of the first input's first axis."""
    first = next(iter(inputs.values()), np.zeros(()))
    return first.shape[0] if first.ndim else 1
