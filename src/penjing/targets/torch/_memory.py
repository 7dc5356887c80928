"""Peak memory of a model in PyTorch."""

import numpy as np

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._records import Artifact

_IMPORTS = """
import torch
from torch.ao.quantization.fx import _decomposed
from torch.utils import _pytree
"""
_LOAD = """
torch.set_num_threads(threads)
program = torch.export.load(path)
leaves, spec = _pytree.tree_flatten(program.example_inputs)
tensors = iter([torch.from_numpy(value) for value in inputs.values()])
leaves = [next(tensors) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
args, kwargs = _pytree.tree_unflatten(leaves, spec)
model = program.module(check_guards=False)
call = torch.inference_mode()(lambda: model(*args, **kwargs))
"""


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux.

    Reading a `.pt2` file loads parts of PyTorch that running it doesn't need; their bytes count as the model's.
    """
    ordered = {spec.name: inputs[spec.name] for spec in artifact.inputs}
    return fresh_memory(artifact, threads, ordered, _IMPORTS, _LOAD)
