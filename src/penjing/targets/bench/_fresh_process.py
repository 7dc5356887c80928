"""Measures in a new process, which holds none of the calling process's memory."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from penjing.errors import PenjingError
from penjing.targets._registry import find_target
from penjing.targets.bench._bench import Job


def refuse_elsewhere(jobs: Mapping[str, Job]) -> None:
    """Raises if a job can't be timed on this machine by Python, since its target has a bench of its own."""
    for job in jobs.values():
        if find_target(job.artifact.target).bench is not None:
            raise PenjingError(
                f"Files for '{job.artifact.target}' are timed by a bench of their own: leave bench= out."
            )


class FreshProcess:
    """Times all jobs in turns in one fresh process; measures each job's memory in one that imports the runtime alone."""

    def times(self, jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
        """Returns the seconds of each timed call; see `Bench`.

        Raises:
            PenjingError: the process failed, or a job's target has a bench of its own.
        """
        refuse_elsewhere(jobs)
        with tempfile.TemporaryDirectory() as folder:
            request = {"runs": runs, "limit": limit, "jobs": {}}
            for number, (name, job) in enumerate(jobs.items()):
                inputs = Path(folder, f"{number}.npz")
                np.savez(inputs, **job.inputs)  # type: ignore[arg-type]
                request["jobs"][name] = {  # type: ignore[index]
                    "target": job.artifact.target,
                    "path": str(job.artifact.path.absolute()),
                    "inputs": str(inputs),
                    "threads": job.threads,
                }
            file = Path(folder, "request.json")
            file.write_text(json.dumps(request))
            command = [sys.executable, "-m", "penjing.targets.bench", str(file)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PenjingError(f"The process that measures latency failed: {done.stderr.strip()[-500:]}")
        found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
        return found

    def memory(self, job: Job) -> tuple[int, int] | None:
        """Returns the peak bytes and the part of them that the model took; see `Bench`."""
        return find_target(job.artifact.target).memory(job.artifact, job.threads, dict(job.inputs))

    def runtime(self, target: str) -> str:
        """Returns the runtime's name and version here: the fresh process has the same packages."""
        return find_target(target).runtime
