"""Sessions of onnxruntime-web, and their times, which are taken where the models run."""

import weakref
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from penjing.errors import PenjingError
from penjing.targets._records import Artifact
from penjing.targets.bench import Job, ThisProcess
from penjing.targets.onnx import failure
from penjing.targets.onnxruntime_web._engine import Engine, Place, Refused, described, packed
from penjing.targets.onnxruntime_web._package import PACKAGE


def check_threads(threads: int) -> None:
    """Makes sure that one thread is asked for.

    Raises:
        PenjingError: there are more.
    """
    if threads != 1:
        raise PenjingError(
            f"onnxruntime-web is measured with one thread, not {threads}: a page has more only where its server sends the "
            "headers of cross-origin isolation. Use threads=1 (--threads 1)."
        )


class WebSession:
    """A loaded model."""

    def __init__(self, artifact: Artifact, threads: int, place: Place) -> None:
        check_threads(threads)
        self._path, self._place = artifact.path, place
        self._engine: Engine | None = None
        self.number = -1
        self.opened()

    def opened(self) -> Engine:
        """Returns the process that holds the model, which is loaded again where the process is a new one.

        Raises:
            PenjingError: the runtime can't load the file.
        """
        current = self._place.engine()
        if current is not self._engine:
            self.number = self._open(current)
            self._engine = current
            weakref.finalize(self, current.release, self.number)
        return current

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs.

        Raises:
            PenjingError: an op fails on these inputs; the message names the user's module that the op came from.
        """
        current = self.opened()
        try:
            answer, body = current.ask({"do": "run", "id": self.number, "inputs": described(inputs)}, [packed(inputs)])
        except Refused as error:
            raise PenjingError(failure(self._runtime, error, inputs)) from error
        return _arrays(answer["outputs"], body)

    @property
    def _runtime(self) -> str:
        return f"{PACKAGE} {self._place.version()}"

    def _open(self, current: Engine) -> int:
        try:
            return current.open(self._path)
        except Refused as error:
            raise PenjingError(f"{self._runtime} can't load {self._path}: {str(error).splitlines()[0]}") from error


class PlaceBench(ThisProcess):
    """Times calls where the models run, since a call takes long to reach from Python."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def times(self, jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
        """Returns the seconds of each timed call; see `Bench`."""
        sessions = {name: WebSession(job.artifact, job.threads, self._place) for name, job in jobs.items()}
        bodies = {name: packed(job.inputs) for name, job in jobs.items()}
        asked = [
            {"name": name, "id": sessions[name].number, "inputs": described(job.inputs), "size": len(bodies[name])}
            for name, job in jobs.items()
        ]
        request = {"do": "times", "jobs": asked, "runs": runs, "limit": limit}
        answer, _ = self._place.engine().ask(request, list(bodies.values()))
        found: dict[str, list[float]] = answer["times"]
        return found

    def energies(self, jobs: Mapping[str, Job]) -> None:
        """Tells nothing: the processor's counters would count what Python does meanwhile."""


@cache
def bench_at(place: Place) -> PlaceBench:
    """Returns the bench of a place, always the same one."""
    return PlaceBench(place)


def _arrays(specs: list[dict[str, Any]], body: bytes) -> list[np.ndarray]:
    found, start = [], 0
    for spec in specs:
        dtype, shape = np.dtype(spec["dtype"]), tuple(spec["shape"])
        count = int(np.prod(shape))
        found.append(np.frombuffer(body, dtype, count, start).reshape(shape).copy())
        start += count * dtype.itemsize
    return found
