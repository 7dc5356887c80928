"""Peak memory of a model, measured in a process of its own that imports PyTorch alone."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from penjing.errors import PenjingError
from penjing.targets._records import Artifact

# VmHWM is the peak of this very process image. ru_maxrss is not used: a child inherits its parent's size in it.
_CHILD = """
import json, sys
import torch
from torch.ao.quantization.fx import _decomposed
from torch.utils import _pytree

def resident(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key)) * 1024

torch.set_num_threads(int(sys.argv[3]))
inputs = torch.load(sys.argv[2])
before = resident("VmRSS:")
program = torch.export.load(sys.argv[1])
leaves, spec = _pytree.tree_flatten(program.example_inputs)
tensors = iter(inputs)
leaves = [next(tensors) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
args, kwargs = _pytree.tree_unflatten(leaves, spec)
model = program.module(check_guards=False)
with torch.inference_mode():
    for _ in range(3):
        model(*args, **kwargs)
peak = resident("VmHWM:")
print(json.dumps([peak, max(0, peak - before)]))
"""


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux.

    Reading a `.pt2` file loads parts of PyTorch that running it doesn't need; their bytes count as the model's.
    """
    if not Path("/proc/self/status").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "inputs.pt")
        torch.save([torch.from_numpy(inputs[spec.name]) for spec in artifact.inputs], file)
        command = [sys.executable, "-c", _CHILD, str(artifact.path), str(file), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PenjingError(f"The process that measures memory failed: {done.stderr.strip()[-500:]}")
    peak, own = json.loads(done.stdout.splitlines()[-1])
    return peak, own
