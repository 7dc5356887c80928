"""The protocol of a bench: what `measure` needs from the place where models are measured.

A bench is given artifacts, which are sets of files, and arrays; it returns plain numbers. So it needs nothing else from the
calling process: a bench may copy the files to another machine and run them there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from penjing.targets._records import Artifact


@dataclass(frozen=True, eq=False)
class Job:
    """One call to measure.

    Attributes:
        artifact: the lowered model.
        inputs: the inputs of the call by name, in the file's dtypes and shapes.
        threads: threads within an op.
    """

    artifact: Artifact
    inputs: Mapping[str, np.ndarray]
    threads: int


@runtime_checkable
class Bench(Protocol):
    """A place where lowered models are run and measured."""

    def times(self, jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
        """Returns the seconds of each timed call, by the jobs' names.

        The jobs take turns in one run, so that drifts of the machine hit all of them alike.

        Args:
            jobs: the calls to time, by name.
            runs: timed calls per job after which timing ends.
            limit: seconds, for all jobs together, after which timing ends anyway.
        """

    def memory(self, job: Job) -> tuple[int, int] | None:
        """Returns the peak bytes of a process that runs nothing but the job, and the part of them that the model took.

        None where the system can't tell.
        """

    def runtime(self, target: str) -> str:
        """Returns the name and version of the runtime with which this bench runs a target's files."""


@runtime_checkable
class EnergyMeter(Protocol):
    """What a bench has besides where it can measure energy."""

    def energies(self, jobs: Mapping[str, Job]) -> dict[str, float] | None:
        """Returns the millijoules that a call of each job adds to what the machine takes at rest, by the jobs' names.

        None where the machine has no counters, or hides them.
        """
