"""Peak memory of a model in ExecuTorch."""

import numpy as np

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._records import Artifact

_IMPORTS = """
import torch
from executorch.extension.pybindings import _C as runtime
"""
_LOAD = """
runtime._unsafe_reset_threadpool(threads)
program = runtime._load_program(path)
method, tensors = program.load_method("forward"), [torch.from_numpy(value) for value in inputs.values()]
call = lambda: method(tensors)
"""


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux.

    ExecuTorch's Python package runs on PyTorch's tensors, so PyTorch is part of the peak; on a device it isn't there.
    """
    ordered = {spec.name: inputs[spec.name] for spec in artifact.inputs}
    return fresh_memory(artifact, threads, ordered, _IMPORTS, _LOAD)
