"""Measures in the calling process."""

from collections.abc import Callable, Mapping
from typing import Any

from penjing.targets._registry import find_target
from penjing.targets.bench._bench import Job
from penjing.targets.bench._energy import energies, zones
from penjing.targets.bench._fresh_process import FreshProcess, refuse_elsewhere
from penjing.targets.bench._turns import in_turns, no_collection


class ThisProcess:
    """Times calls in this process; measures memory in a fresh one, since PyTorch and others take up memory in this one."""

    def times(self, jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
        """Returns the seconds of each timed call; see `Bench`.

        Raises:
            PenjingError: a job's target has a bench of its own.
        """
        refuse_elsewhere(jobs)
        return in_turns({name: _call(job) for name, job in jobs.items()}, runs, limit)

    def memory(self, job: Job) -> tuple[int, int] | None:
        """Returns the peak bytes and the part of them that the model took; see `Bench`."""
        return FreshProcess().memory(job)

    def energies(self, jobs: Mapping[str, Job]) -> dict[str, float] | None:
        """Returns the millijoules of a call of each job; see `EnergyMeter`."""
        counters = zones()
        if not counters:
            return None
        calls = {name: _call(job) for name, job in jobs.items()}
        for call in calls.values():
            call()
        with no_collection():
            return energies(calls, counters)

    def runtime(self, target: str) -> str:
        """Returns the runtime's name and version."""
        return find_target(target).runtime


def _call(job: Job) -> Callable[[], Any]:
    run, inputs = find_target(job.artifact.target).session(job.artifact, job.threads).run, dict(job.inputs)
    return lambda: run(inputs)
