"""What `measure` asks of the place where models are measured.

A bench is given artifacts, which are sets of files, and arrays; it gives back plain numbers. So it needs nothing of the process
that asks: a bench may copy the files elsewhere and run them there.
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
        inputs: of the call, by name, in the file's dtypes and shapes.
        threads: within an op.
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
            jobs: what to time.
            runs: timed calls per job after which timing ends.
            limit: seconds for all timed calls together after which it ends anyway.
        """

    def memory(self, job: Job) -> tuple[int, int] | None:
        """Returns peak bytes of a process that does nothing but the job, and those of them that the model took.

        None where the system can't tell.
        """

    def runtime(self, target: str) -> str:
        """Returns name and version of the runtime that it runs a target's files with."""
