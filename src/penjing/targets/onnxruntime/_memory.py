"""Peak memory of a model in ONNX Runtime."""

import numpy as np

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._records import Artifact

_LOAD = """
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
call = lambda: session.run(None, inputs)
"""


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux."""
    return fresh_memory(artifact, threads, inputs, "import onnxruntime", _LOAD)
