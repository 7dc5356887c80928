"""Measures in the calling process."""

from collections.abc import Callable, Mapping
from typing import Any

from penjing.errors import PenjingError
from penjing.targets._registry import find_target
from penjing.targets.bench._bench import Job
from penjing.targets.bench._energy import energies, zones
from penjing.targets.bench._fresh_process import FreshProcess
from penjing.targets.bench._turns import in_turns, no_collection


class ThisProcess:
    """Times calls in this process; measures memory in a fresh one, since PyTorch and others take up memory in this one."""

    def times(self, jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
        """Returns the seconds of each timed call; see `Bench`.

        Raises:
            PenjingError: the jobs are those of several runtimes, of which one takes its times by itself.
        """
        names = {job.artifact.target for job in jobs.values()}
        timers = {name: timer for name in names if (timer := find_target(name).times) is not None}
        if timers and len(names) > 1:
            raise PenjingError(
                f"{' and '.join(sorted(names))} can't take turns, since {min(timers)} takes its times in a process of its own: "
                "measure each by itself."
            )
        for timer in timers.values():
            return timer(jobs, runs, limit)
        calls = {name: _call(job) for name, job in jobs.items()}
        with no_collection():
            return in_turns(calls, runs, limit)

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
        found = find_target(target)
        return f"{found.name} {found.version}"


def _call(job: Job) -> Callable[[], Any]:
    run, inputs = find_target(job.artifact.target).session(job.artifact, job.threads).run, dict(job.inputs)
    return lambda: run(inputs)
