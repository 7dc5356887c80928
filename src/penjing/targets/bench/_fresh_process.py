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


class FreshProcess:
    """Times all jobs in turns in one fresh process; measures each job's memory in one that imports the runtime alone."""

    def times(self, jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
        """Returns the seconds of each timed call; see `Bench`.

        Raises:
            PenjingError: the process failed.
        """
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
