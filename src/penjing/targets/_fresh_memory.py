"""Peak memory of a model, measured in a process of its own that imports nothing but its runtime and NumPy."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from penjing.errors import PenjingError
from penjing.targets._records import Artifact

_STATUS = Path("/proc/self/status")


def fresh_memory(
    on_device: Path, artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]
) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux.

    Args:
        on_device: a Python file that imports the runtime and defines `load(path, threads, inputs)`, which returns a function
            without arguments that makes one call.
        artifact: the lowered model.
        threads: threads within an op.
        inputs: the inputs of one call by name.

    Raises:
        PenjingError: the process failed.
    """
    from penjing.targets.bench import Job, write_program, write_request  # which needs the registry, as targets do

    if not _STATUS.exists():
        return None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        program = write_program(folder, on_device)
        write_request(folder, {"model": Job(artifact, inputs, threads)}, seconds=0, copied=False)
        command = [sys.executable, str(program), str(folder), "--memory", "model"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PenjingError(f"The process that measures memory failed: {done.stderr.strip()[-500:]}")
    peak, own = json.loads(done.stdout.splitlines()[-1])
    return peak, own
