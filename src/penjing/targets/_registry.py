"""The runtimes that Penjing can lower to, and those that it knows of but can't serve yet."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.registry import Registry
from penjing.targets._records import Artifact, ExecutedNode


class Session(Protocol):
    """A loaded model, ready to run."""

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs."""


@dataclass(frozen=True)
class Zeros:
    """What a runtime makes of zeros among weights that keep their shapes.

    Attributes:
        skipped: granularities of pruning whose zeros its kernels skip: they make it faster.
        left_out: granularities whose zeros its files leave out: they make the file smaller.
        why: why it is so, as a sentence of a report.
    """

    skipped: frozenset[str]
    left_out: frozenset[str]
    why: str


@dataclass(frozen=True)
class Target:
    """One runtime.

    Attributes:
        name: what users type.
        version: of the installed runtime.
        device: where it runs.
        suffix: of its files.
        lower: writes a graph as a file at a path; what goes wrong may leave half of one there.
        open: describes a file that `lower` wrote.
        session: loads a file with a number of threads.
        profile: times each executed node, given threads, inputs by name and a number of runs.
        memory: peak and model-only resident bytes of a fresh process, given threads and inputs by name; None where
            the system can't tell.
        write_runner: writes a script that uses the file with the runtime alone into a directory.
        zeros: what it makes of weights that pruning set to zero.
    """

    name: str
    version: str
    device: str
    suffix: str
    lower: Callable[[Graph, Path], Artifact]
    open: Callable[[Path], Artifact]
    session: Callable[[Artifact, int], Session]
    profile: Callable[[Artifact, int, dict[str, np.ndarray], int], list[ExecutedNode]]
    memory: Callable[[Artifact, int, dict[str, np.ndarray]], tuple[int, int] | None]
    write_runner: Callable[[Path], Path]
    zeros: Zeros


@dataclass(frozen=True)
class Availability:
    """Whether a runtime can be used here.

    Attributes:
        name: the target's name.
        usable: whether `lower` and `measure` work with it on this machine.
        version: of the installed package; None if it isn't installed.
        note: what to install, or that Penjing doesn't support it yet.
    """

    name: str
    usable: bool
    version: str | None
    note: str


targets: Registry[Callable[[], Target]] = Registry("target")

# Runtimes that the design foresees, with the package that carries each.
NOT_YET = {"openvino": "openvino", "litert": "ai-edge-litert", "executorch": "executorch"}


def find_target(name: str) -> Target:
    """Returns the target of that name.

    Raises:
        PenjingError: the name is unknown, or the runtime isn't supported yet.
    """
    if name in NOT_YET:
        raise PenjingError(f"Penjing can't lower to '{name}' yet. Supported targets: {', '.join(sorted(targets))}.")
    return targets[name].function()


def available() -> list[Availability]:
    """Lists every known runtime and whether it is usable on this machine."""
    rows = []
    for name, entry in targets.items():
        package = entry.traits["package"]
        version = _version(package)
        note = "" if version else f"pip install {package}"
        rows.append(Availability(name, version is not None, version, note))
    rows += [Availability(n, False, _version(package), "not supported yet") for n, package in NOT_YET.items()]
    return rows


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
