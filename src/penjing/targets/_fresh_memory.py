"""Peak memory of a model, measured in a process of its own that imports nothing but its runtime and NumPy."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from penjing.errors import PenjingError
from penjing.targets._records import Artifact

RUNS = 3  # calls before the peak is read: some runtimes take part of their memory at the second call
_STATUS = Path("/proc/self/status")

# VmHWM is the peak of this very process image. ru_maxrss is not used: a child inherits its parent's size in it.
_CHILD = """
import json, sys
import numpy
{imports}

def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) * 1024

path, threads = sys.argv[1], int(sys.argv[3])
inputs = dict(numpy.load(sys.argv[2]))
before = resident("VmRSS:")
{load}
for _ in range({runs}):
    call()
peak = resident("VmHWM:")
print(json.dumps([peak, max(0, peak - before)]))
"""


def fresh_memory(
    artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], imports: str, load: str
) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux.

    Args:
        artifact: the lowered model.
        threads: threads within an op.
        inputs: the inputs of one call by name.
        imports: lines of Python that import the runtime.
        load: lines of Python that load the file `path` for `threads` threads and define `call()`, which runs `inputs` once.

    Raises:
        PenjingError: the process failed.
    """
    if not _STATUS.exists():
        return None
    code = _CHILD.format(imports=imports, load=load, runs=RUNS)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "inputs.npz")
        np.savez(file, **inputs)  # type: ignore[arg-type]
        command = [sys.executable, "-c", code, str(artifact.path), str(file), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PenjingError(f"The process that measures memory failed: {done.stderr.strip()[-500:]}")
    peak, own = json.loads(done.stdout.splitlines()[-1])
    return peak, own
