"""The program that measures where a model runs: here in a fresh process, or on a device. It needs the runtime and NumPy alone.

A folder holds `request.json`, the files of the jobs that it names, and this program. What was found is written into `result.json`
beside them. The program's other parts are given to `main`, so that it imports nothing of Penjing's.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

REQUEST, RESULT = "request.json", "result.json"
MEMORY_CALLS = 3  # calls before the peak is read: some runtimes take part of their memory at the second call
_STATUS = Path("/proc/self/status")


def main(runtime: Any, in_turns: Any, machine: Any, arguments: list[str] | None = None) -> None:
    """Runs what the request asks for.

    Args:
        runtime: the runtime's part, a module with `version()`, `load(path, threads, inputs)` and
            `profile(path, threads, inputs, runs)`.
        in_turns: times calls in turns; see `penjing.targets.bench`.
        machine: returns what the machine is.
        arguments: of the command line; those of the process by default.
    """
    parser = argparse.ArgumentParser(description="Measures the models in a folder, and writes result.json there.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sys.argv[0]).absolute().parent)
    parser.add_argument("--memory", metavar="JOB", help="only the memory of this job, in this very process")
    options = parser.parse_args(arguments)
    request = json.loads((options.folder / REQUEST).read_text())
    if hasattr(signal, "alarm"):
        signal.alarm(int(request["seconds"]))  # nobody may be left to end it, should the connection be lost; 0 is never
    if options.memory is not None:
        print(json.dumps(_memory(runtime, options.folder, request["jobs"][options.memory])))
        return
    result = _measured(runtime, in_turns, machine, options.folder, request)
    temporary = options.folder / (RESULT + ".part")
    temporary.write_text(json.dumps(result))
    os.replace(temporary, options.folder / RESULT)
    for name, seconds in result["times"].items():
        print(f"{name}: {1e3 * statistics.median(seconds):.3f} ms, the median of {len(seconds)} calls")
    print(f"Wrote {options.folder / RESULT}")


def _measured(runtime: Any, in_turns: Any, machine: Any, folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    jobs = request["jobs"]
    found: dict[str, Any] = {
        "runtime": runtime.version(),
        "machine": machine(),
        "files": {
            name: hashlib.sha256(Path(folder, job["file"]).read_bytes()).hexdigest() for name, job in jobs.items()
        },
        "times": {},
        "outputs": {},
        "profiles": {},
        "memory": {},
    }
    if request["times"] is not None:
        calls = {name: _call(runtime, folder, job) for name, job in jobs.items()}
        found["outputs"] = {name: _packed(call()) for name, call in calls.items()}
        found["times"] = in_turns(calls, request["times"]["runs"], request["times"]["limit"])
        del calls
    for name, job in jobs.items():
        if request["profile_runs"]:
            file, inputs = Path(folder, job["file"]), _inputs(folder, job)
            found["profiles"][name] = runtime.profile(str(file), job["threads"], inputs, request["profile_runs"])
        if request["memory"]:
            found["memory"][name] = _fresh(folder, name)
    return found


def _call(runtime: Any, folder: Path, job: dict[str, Any]) -> Any:
    return runtime.load(str(Path(folder, job["file"])), job["threads"], _inputs(folder, job))


def _inputs(folder: Path, job: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns a job's inputs by name, in the order of the file's inputs."""
    with np.load(Path(folder, job["inputs"])) as arrays:  # NumPy refuses pickles
        return {name: arrays[str(place)] for place, name in enumerate(job["names"])}


def _packed(outputs: list[np.ndarray]) -> str:
    """Returns arrays as text."""
    file = io.BytesIO()
    np.savez(file, *outputs)
    return base64.b64encode(file.getvalue()).decode()


def _fresh(folder: Path, name: str) -> list[int] | None:
    """Returns what a process that runs this job alone takes; None where the system doesn't tell."""
    if not _STATUS.exists():
        return None
    command = [sys.executable, sys.argv[0], str(folder), "--memory", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"The process that measures the memory of '{name}' failed: {' '.join(done.stderr.split())[-400:]}")
    found: list[int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _memory(runtime: Any, folder: Path, job: dict[str, Any]) -> list[int]:
    """Returns the peak resident bytes of this process, and those of them that came after the imports."""
    inputs = _inputs(folder, job)
    before = _resident("VmRSS:")
    call = runtime.load(str(Path(folder, job["file"])), job["threads"], inputs)
    for _ in range(MEMORY_CALLS):
        call()
    # VmHWM is the peak of this very process image. ru_maxrss is not used: a child inherits its parent's size in it.
    peak = _resident("VmHWM:")
    return [peak, max(0, peak - before)]


def _resident(key: str) -> int:
    with _STATUS.open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) * 1024
