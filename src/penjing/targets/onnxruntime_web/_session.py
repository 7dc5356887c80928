"""Sessions of onnxruntime-web in Node, and their times, which are taken in Node itself."""

import re
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import PenjingError
from penjing.targets._records import Artifact
from penjing.targets.bench import Job, ThisProcess
from penjing.targets.onnx import origin
from penjing.targets.onnxruntime_web._engine import Engine, Refused, described, engine, packed, version

_FAILED_NODE = re.compile(r"Name: ?'([^']*)'")


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

    def __init__(self, artifact: Artifact, threads: int) -> None:
        check_threads(threads)
        self._path = artifact.path
        self._engine: Engine | None = None
        self.number = -1
        self.opened()

    def opened(self) -> Engine:
        """Returns the process that holds the model, which is loaded again where the process is a new one.

        Raises:
            PenjingError: the runtime can't load the file.
        """
        current = engine()
        if current is not self._engine:
            self.number = opened(current, self._path)
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
            raise PenjingError(_failure(str(error), inputs)) from error
        return _arrays(answer["outputs"], body)


def opened(current: Engine, path: Path) -> int:
    """Loads a file; returns its number.

    Raises:
        PenjingError: the runtime can't load it.
    """
    try:
        return current.open(path)
    except Refused as error:
        raise PenjingError(f"onnxruntime-web {version()} can't load {path}: {str(error).splitlines()[0]}") from error


class NodeBench(ThisProcess):
    """Times calls in Node's process, since a call takes long to reach from Python."""

    def times(self, jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
        """Returns the seconds of each timed call; see `Bench`."""
        return _times(jobs, runs, limit)


BENCH = NodeBench()


def _times(jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
    sessions = {name: WebSession(job.artifact, job.threads) for name, job in jobs.items()}
    bodies = {name: packed(job.inputs) for name, job in jobs.items()}
    asked = {
        name: {"id": sessions[name].number, "inputs": described(job.inputs), "size": len(bodies[name])}
        for name, job in jobs.items()
    }
    answer, _ = engine().ask({"do": "times", "jobs": asked, "runs": runs, "limit": limit}, list(bodies.values()))
    found: dict[str, list[float]] = answer["times"]
    return found


def _arrays(specs: list[dict[str, Any]], body: bytes) -> list[np.ndarray]:
    found, start = [], 0
    for spec in specs:
        dtype, shape = np.dtype(spec["dtype"]), tuple(spec["shape"])
        count = int(np.prod(shape))
        found.append(np.frombuffer(body, dtype, count, start).reshape(shape).copy())
        start += count * dtype.itemsize
    return found


def _failure(reason: str, inputs: Mapping[str, np.ndarray]) -> str:
    text = " ".join(reason.split())
    node = _FAILED_NODE.search(text)
    source = origin(node[1]) if node is not None else None
    where = f" in '{source[0] or source[1]}'" if source is not None else ""
    shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    return f"onnxruntime-web {version()} fails{where} on inputs of the shapes {shapes}: {text}"
