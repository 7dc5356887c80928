"""Peak memory of a model, measured in a process of its own that imports nothing but LiteRT and NumPy."""

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
import numpy
from ai_edge_litert.interpreter import Interpreter

def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) * 1024

inputs = list(numpy.load(sys.argv[2]).values())
before = resident("VmRSS:")
interpreter = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[3]))
interpreter.allocate_tensors()
for _ in range(3):
    for given, array in zip(interpreter.get_input_details(), inputs):
        interpreter.set_tensor(given["index"], array)
    interpreter.invoke()
    outputs = [interpreter.get_tensor(made["index"]) for made in interpreter.get_output_details()]
peak = resident("VmHWM:")
print(json.dumps([peak, max(0, peak - before)]))
"""


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux."""
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "inputs.npz")
        np.savez(file, *(inputs[spec.name] for spec in artifact.inputs))
        command = [sys.executable, "-c", _CHILD, str(artifact.path), str(file), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PenjingError(f"The process that measures memory failed: {done.stderr.strip()[-500:]}")
    peak, own = json.loads(done.stdout.splitlines()[-1])
    return peak, own
