"""The table of runtimes: the functions of each, the packages that it needs, and whether these are installed here."""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.registry import Entry, Registry
from penjing.targets._device import DeviceFacts, machine_facts
from penjing.targets._records import Artifact, ExecutedNode

if TYPE_CHECKING:
    from penjing.targets.bench import Bench


class Session(Protocol):
    """A loaded model, ready to run."""

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs."""


@dataclass(frozen=True)
class Target:
    """One runtime.

    Attributes:
        name: the name that users type.
        version: version of the installed runtime.
        device: the device on which the runtime runs models, such as "cpu".
        suffixes: suffixes of the files that a lowered model consists of, the main file's first.
        lower: writes a graph to a path, and any other files beside that one, under the names that `files` gives; if it
            fails, some of these files may be left.
        open: returns the artifact of a lowered model, given the path of its main file.
        session: loads an artifact, given the number of threads within an op.
        profile: times each executed node, given threads, inputs by name and a number of runs.
        memory: returns the peak resident bytes of a fresh process and the part that the model took, given threads and
            inputs by name; None where the system can't tell.
        runner: path of the template for the script that uses the file with the runtime alone: within `targets/`, or absolute.
        staged_runner: the same for a network in stages; None where there is no such script.
        on_device: a Python file that needs the runtime and NumPy alone, with which a device measures files: it defines
            `version()`, `load(path, threads, inputs)`, which returns a function without arguments that makes one call and
            returns its outputs, and `profile(path, threads, inputs, runs)`, which returns what `rows` reads, as JSON can hold
            it. None where files are measured on this machine alone.
        rows: returns the executed nodes, given an artifact, inputs by name, and what `profile` of `on_device` returned.
        fixed_sizes: whether a file takes inputs of one size alone: of batch 1 where the graph's batch is free.
        filled: values of further variables of the script's template, by name.
        beside: further files that are delivered with a lowered model, by name: functions that write them into the folder, of
            the files that are delivered there.
        machine: the device, where that is another one; None for this machine.
        bench: the place where files are measured unless another is asked for; None for this process.
        store_half: rewrites the files of a lowered model, given the path of the main one, so that float weights which 16
            bits hold exactly take 16 bits; None where the runtime reads float weights of 32 bits alone.
    """

    name: str
    version: str
    device: str
    suffixes: tuple[str, ...]
    lower: Callable[[Graph, Path], Artifact]
    open: Callable[[Path], Artifact]
    session: Callable[[Artifact, int], Session]
    profile: Callable[[Artifact, int, dict[str, np.ndarray], int], list[ExecutedNode]]
    memory: Callable[[Artifact, int, dict[str, np.ndarray]], tuple[int, int] | None]
    runner: str
    staged_runner: str | None = None
    on_device: Path | None = None
    rows: Callable[[Artifact, dict[str, np.ndarray], Any], list[ExecutedNode]] | None = None
    fixed_sizes: bool = False
    filled: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    machine: DeviceFacts | None = None
    bench: "Bench | None" = None
    store_half: Callable[[Path], None] | None = None

    def renamed(self, name: str) -> "Target":
        """Returns the same target under another name, which its artifacts bear too."""

        def lower(graph: Graph, path: Path) -> Artifact:
            return replace(self.lower(graph, path), target=name)

        def describe(path: Path) -> Artifact:
            return replace(self.open(path), target=name)

        return replace(self, name=name, lower=lower, open=describe)

    @property
    def suffix(self) -> str:
        """Suffix of the main file."""
        return self.suffixes[0]

    @property
    def runtime(self) -> str:
        """Name and version of the runtime."""
        return f"{runtime_of(self.name)} {self.version}"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Returns the paths of all files of a lowered model, given the path of its main file, which comes first."""
        stem = path.name.removesuffix(self.suffix)
        return path, *(path.with_name(stem + suffix) for suffix in self.suffixes[1:])


@dataclass(frozen=True)
class Availability:
    """Whether a runtime can be used here.

    Attributes:
        name: the target's name.
        usable: whether `lower` and `measure` work with the runtime on this machine: all that it needs is installed.
        version: version of the runtime's package; None if it isn't installed.
        note: advice on what to install; "" where the runtime is usable.
    """

    name: str
    usable: bool
    version: str | None
    note: str


@dataclass(frozen=True, kw_only=True)
class TargetEntry(Entry[Callable[[], Target]]):
    """A registered target; its function imports the runtime.

    Attributes:
        packages: the distributions that the target needs, the runtime's first.
        builds: for a distribution, others that hold the same module, any of which will do.
        lacks: returns advice on what is missing beside packages; "" where nothing is. It imports no runtime.
        version: returns the version of a runtime that isn't the first package; None where it isn't installed.
    """

    packages: tuple[str, ...]
    builds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lacks: Callable[[], str] = lambda: ""
    version: Callable[[], str | None] | None = None


targets = Registry("target", TargetEntry)


def runtime_of(target: str) -> str:
    """Returns the name of the runtime that a target's name or a device's address names."""
    return urlsplit(target).path.strip("/") if "://" in target else target


def find_target(name: str) -> Target:
    """Returns the target of that name, and imports its runtime.

    Args:
        name: name of a runtime, or the address of a device with one: `ssh://user@host/onnxruntime`.

    Raises:
        PenjingError: the name is unknown, or the runtime isn't installed, or the device can't be reached.
    """
    if "://" in name:
        from penjing.targets.devices import on_device  # which needs this module

        return on_device(name)
    entry = targets[name]
    try:
        return entry.function()
    except ModuleNotFoundError as error:
        if not _missing(entry):  # then the import fails for another reason, which is not to be hidden
            raise
        raise PenjingError(f"The target '{name}' can't be used here: {error}. {_advice(entry)}") from error


def machine_of(target: str) -> DeviceFacts:
    """Returns what the machine is on which a target's files are measured, without measuring anything.

    Raises:
        PenjingError: as `find_target`.
    """
    return find_target(target).machine or machine_facts()


def available() -> list[Availability]:
    """Lists every target and whether its runtime is usable on this machine; imports none of them."""
    found = []
    for name, entry in targets.items():
        advice = _advice(entry) or entry.lacks()
        version = entry.version() if entry.version is not None else _installed(entry, entry.packages[0])
        found.append(Availability(name, not advice, version, advice))
    return found


def _missing(entry: TargetEntry) -> list[str]:
    """Returns the packages that a target needs and that aren't installed."""
    return [package for package in entry.packages if _installed(entry, package) is None]


def _advice(entry: TargetEntry) -> str:
    """Returns advice on the packages to install; "" where none is missing."""
    missing = _missing(entry)
    return f"Install what it needs: pip install {' '.join(missing)}" if missing else ""


def _installed(entry: TargetEntry, package: str) -> str | None:
    """Returns the version of a package that a target needs, or of another build of it; None where none is installed."""
    found = (_version(build) for build in (package, *entry.builds.get(package, ())))
    return next((version for version in found if version is not None), None)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
