"""Makes the program that measures where a model runs, one file that needs the runtime and NumPy alone, and what it reads."""

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from penjing.targets._records import Artifact
from penjing.targets.bench._bench import Job
from penjing.targets.bench._measuring import REQUEST

PROGRAM = "measure.pyz"
_HERE = Path(__file__).parent
_START = """import sys

try:
    import penjing_runtime
except ImportError as error:
    sys.exit(f"{sys.executable} can't import the runtime: {error}")
import penjing_machine
import penjing_measuring
import penjing_turns

penjing_measuring.main(
    penjing_runtime, penjing_turns.in_turns, lambda: penjing_machine.machine_facts().to_dict()
)
"""


def write_program(folder: Path, on_device: Path) -> Path:
    """Writes the program, given the runtime's part of it: `python measure.pyz` runs what the folder's request asks for."""
    path = folder / PROGRAM
    parts = {
        "penjing_runtime.py": on_device,
        "penjing_measuring.py": _HERE / "_measuring.py",
        "penjing_turns.py": _HERE / "_turns.py",
        "penjing_machine.py": _HERE.parent / "_device.py",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as program:
        program.writestr("__main__.py", _START)
        for name, part in parts.items():
            program.writestr(name, part.read_text())
    return path


def write_request(
    folder: Path,
    jobs: Mapping[str, Job],
    *,
    seconds: float,
    times: tuple[int, float] | None = None,
    profile_runs: int = 0,
    memory: bool = False,
    copied: bool = True,
    more: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes the request and the inputs of its jobs into a folder; returns all files that belong to it.

    Args:
        folder: where the program lies.
        jobs: the calls, by name.
        seconds: after which the program ends itself; 0 for never.
        times: timed calls per job and seconds for all jobs together, after which timing ends; None to time nothing.
        profile_runs: runs of each job's profile; 0 for none.
        memory: whether to measure the memory of each job.
        copied: whether to copy the models into the folder, so that it can be taken elsewhere.
        more: further entries of the request, which the program doesn't read.
    """
    files, named = [], {}
    for number, (name, job) in enumerate(jobs.items()):
        inputs = folder / f"{number}.inputs.npz"
        ordered = [spec.name for spec in job.artifact.inputs]
        np.savez(inputs, **{str(place): job.inputs[one] for place, one in enumerate(ordered)})  # type: ignore[arg-type]
        files.append(inputs)
        model = job.artifact.path.absolute()
        if copied:
            copies = _copied(job.artifact, folder, str(number))
            files += copies
            model = Path(copies[0].name)
        named[name] = {"file": str(model), "inputs": inputs.name, "names": ordered, "threads": job.threads}
    request = {
        "seconds": seconds,
        "times": None if times is None else {"runs": times[0], "limit": times[1]},
        "profile_runs": profile_runs,
        "memory": memory,
        "jobs": named,
        **(more or {}),
    }
    path = folder / REQUEST
    path.write_text(json.dumps(request))
    return [*files, path]


def _copied(artifact: Artifact, folder: Path, stem: str) -> list[Path]:
    """Copies an artifact's files under a stem of their own; returns the copies, the main file's first."""
    main = artifact.path.name.partition(".")[0]
    copies = [folder / (stem + file.name.removeprefix(main)) for file in artifact.files]
    for file, copy in zip(artifact.files, copies, strict=True):
        shutil.copyfile(file, copy)
    return copies
