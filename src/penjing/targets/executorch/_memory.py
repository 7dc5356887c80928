"""Peak memory of a model, measured in a process of its own that imports the runtime alone."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from penjing.errors import PenjingError
from penjing.targets._records import Artifact

# VmHWM is the peak of this very process image. ru_maxrss is not used: a child inherits its parent's size in it.
_CHILD = """
import json, sys
import numpy, torch
from executorch.extension.pybindings import _C as runtime

def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) * 1024

arrays = numpy.load(sys.argv[2])
inputs = [torch.from_numpy(arrays[name]) for name in arrays.files]
runtime._unsafe_reset_threadpool(int(sys.argv[3]))
before = resident("VmRSS:")
program = runtime._load_program(sys.argv[1])
method = program.load_method("forward")
for _ in range(3):
    method(inputs)
peak = resident("VmHWM:")
print(json.dumps([peak, max(0, peak - before)]))
"""


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux.

    ExecuTorch's Python package runs on PyTorch's tensors, so PyTorch is part of the peak; on a device it isn't there.
    """
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "inputs.npz")
        np.savez(file, **{spec.name: inputs[spec.name] for spec in artifact.inputs})  # type: ignore[arg-type]
        command = [sys.executable, "-c", _CHILD, str(artifact.path), str(file), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PenjingError(f"The process that measures memory failed: {done.stderr.strip()[-500:]}")
    peak, own = json.loads(done.stdout.splitlines()[-1])
    return peak, own
