"""A device as a bench: files and one program are copied there, run, and removed; numbers come back."""

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import PenjingError
from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets._registry import Target, find_target
from penjing.targets.bench import PROGRAM, RESULT, Job, write_program, write_request
from penjing.targets.devices._address import Address
from penjing.targets.devices._answer import Answer
from penjing.targets.devices._connection import Connection
from penjing.targets.devices._leftovers import folder_on

SPARE_SECONDS = 300.0  # for loading files and for rounds that are made even past the time limit
ENDED = {  # by what a shell returns for a program that a signal ended: 128 and the signal's number
    128 + 14: "The program there ended itself, since it took too long.",
    128 + 9: "The program there was killed: perhaps the device ran out of memory.",
}
UNLIKE = 0.5  # share of an output's norm from which on no rounding explains a difference between two processors


class DeviceBench:
    """Measures on another device; see `Bench`.

    Every measurement is a process of its own there, which ends itself after a bounded time. What a model gives there is
    compared with what it gives here.
    """

    def __init__(self, address: Address, connection: Connection, local: Target) -> None:
        self._address, self._connection, self._local = address, connection, local

    def times(self, jobs: Mapping[str, Job], runs: int, limit: float) -> dict[str, list[float]]:
        """Returns the seconds of each timed call; see `Bench`.

        Raises:
            PenjingError: the device doesn't answer, the program fails there, or a model gives something else there than here.
        """
        answer = self.ask(jobs, limit + SPARE_SECONDS, times=(runs, limit))
        for name, job in jobs.items():
            check_outputs(name, job, answer, self._local, self._address.device)
        return {name: list(answer.times[name]) for name in jobs}

    def memory(self, job: Job) -> tuple[int, int] | None:
        """Returns the peak bytes and the part of them that the model took; see `Bench`."""
        return self.ask({"model": job}, SPARE_SECONDS, memory=True).memory["model"]

    def runtime(self, target: str) -> str:
        """Returns the name and version of the runtime there."""
        return find_target(target).runtime

    def profile(self, artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[ExecutedNode]:
        """Returns every node that the device executed, in order; see `ExecutedNode`."""
        answer = self.ask({"model": Job(artifact, inputs, threads)}, SPARE_SECONDS, profile_runs=runs)
        return rows(self._local, artifact, inputs, answer.profiles["model"], self._address.device)

    def ask(self, jobs: Mapping[str, Job], seconds: float, **wanted: Any) -> Answer:
        """Copies files to the device, measures there, and brings back what was found; nothing stays there.

        Args:
            jobs: the calls, by name; none to ask only what the device is.
            seconds: after which the program there ends itself.
            wanted: what to measure; see `write_request`.

        Raises:
            PenjingError: the device doesn't answer, or the program fails there.
        """
        device = self._address.device
        with tempfile.TemporaryDirectory() as temporary, folder_on(device, self._connection) as there:
            here = Path(temporary)
            assert self._local.on_device is not None
            program = write_program(here, self._local.on_device)
            files = write_request(here, jobs, seconds=seconds, **wanted)
            self._connection.send([program, *files], there)
            command = f"{shlex.quote(self._address.python)} {there}/{PROGRAM} {there}; exit $?"
            # A shell waits for the program: ssh itself would tell of one that a signal ended as of a lost connection.
            code, _, error = self._connection.run(f"sh -c {shlex.quote(command)}", seconds + SPARE_SECONDS)
            if code != 0:
                raise PenjingError(f"Measuring on {device} failed. {self._reason(code, error)}")
            answer = Answer.parse(self._connection.fetch(f"{there}/{RESULT}"), device)
        self._check_complete(answer, jobs, wanted)
        return answer

    def _check_complete(self, answer: Answer, jobs: Mapping[str, Job], wanted: Mapping[str, Any]) -> None:
        """Raises unless there is a result of every job for everything that was to be measured."""
        timed = "times" in wanted
        parts: list[tuple[str, Mapping[str, Any], bool]] = [
            ("times", answer.times, timed),
            ("outputs", answer.outputs, timed),
            ("profile", answer.profiles, "profile_runs" in wanted),
            ("memory", answer.memory, "memory" in wanted),
        ]
        for what, found, asked in parts:
            missing = [name for name in jobs if name not in found or found[name] == ()]
            if asked and missing:
                raise PenjingError(f"{self._address.device} sent no {what} of {', '.join(missing)}: measure again.")
        if any(seconds <= 0 for times in answer.times.values() for seconds in times):
            raise PenjingError(f"{self._address.device} sent times that aren't positive: measure again.")

    def _reason(self, code: int, error: str) -> str:
        """Says why the program failed there, and what to do."""
        last = error.splitlines()[-1] if error else f"The program ended with {code}."
        if code in ENDED:
            return ENDED[code]
        if code in (126, 127):
            return f"There is no Python at '{self._address.python}': put ?python=/path/of/python3 behind the address. ({last})"
        if "No module named" in last or "can't import the runtime" in last:
            return (
                f"Its Python lacks a package: install the runtime and NumPy there (python3 -m pip install numpy and what "
                f"`penjing targets` says), or name another interpreter by ?python=/path/of/python3. ({last})"
            )
        return last


def check_outputs(name: str, job: Job, answer: Answer, local: Target, device: str) -> None:
    """Makes sure that a model gives on a device what it gives here, but for roundings.

    Args:
        name: of the job.
        job: the call that was made on the device.
        answer: what the device sent.
        local: the target of the same runtime here.
        device: what errors call the device.

    Raises:
        PenjingError: an output is another.
    """
    here = local.session(job.artifact, job.threads).run(dict(job.inputs))
    there = answer.outputs_of(name)
    if len(there) != len(here):
        raise PenjingError(f"'{name}' gives {len(there)} outputs on {device}, and {len(here)} here.")
    for output, a, b in zip(job.artifact.outputs, here, there, strict=False):
        if not alike(a, b):
            raise PenjingError(
                f"Output '{output}' of '{name}' on {device} is another than here, beyond what roundings explain: "
                f"{local.name} {answer.runtime} there and {local.version} here don't agree. Install the same version on both."
            )


def alike(here: np.ndarray, there: np.ndarray) -> bool:
    """Tells whether roundings may explain how an output on a device differs from the one here.

    Of integers, such as the number of a class, only the shape is compared: one rounding may turn them into any other.
    """
    if here.shape != there.shape or here.dtype != there.dtype:
        return False
    if not np.issubdtype(here.dtype, np.floating):
        return True
    finite = np.isfinite(here)
    if not np.array_equal(finite, np.isfinite(there)):
        return False
    a, b = here[finite].astype(np.float64), there[finite].astype(np.float64)
    return bool(np.linalg.norm(a - b) <= UNLIKE * max(float(np.linalg.norm(a)), 1e-6))


def rows(
    local: Target, artifact: Artifact, inputs: dict[str, np.ndarray], profile: Any, device: str
) -> list[ExecutedNode]:
    """Returns the executed nodes, given a profile that a device made.

    Raises:
        PenjingError: it isn't a profile of this file.
    """
    assert local.rows is not None
    try:
        return local.rows(artifact, inputs, profile)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise PenjingError(f"The profile from {device} can't be read ({error!r}): measure again.") from error
