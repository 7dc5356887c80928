"""Peak memory of a model in OpenVINO."""

import numpy as np

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._records import Artifact

_LOAD = """
core = openvino.Core()
model = core.read_model(path)
if model.is_dynamic():
    model.reshape({name: value.shape for name, value in inputs.items()})
chosen = {
    "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False
}
request = core.compile_model(model, "CPU", chosen).create_infer_request()
call = lambda: request.infer(inputs, share_inputs=True)
"""


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux."""
    return fresh_memory(artifact, threads, inputs, "import openvino", _LOAD)
