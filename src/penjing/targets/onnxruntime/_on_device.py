"""ONNX Runtime's part of a measurement. It needs the runtime and NumPy alone, and also runs on other devices."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

WARM_UP_RUNS = 3
WEIGHTS_APART = {  # of the model as it was optimised, which is so a small file
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}
FATAL_ONLY = 4  # log severity: errors are raised, so they needn't be printed as well


def version() -> str:
    """Returns the runtime's version."""
    return str(ort.__version__)


def options(threads: int) -> ort.SessionOptions:
    """Returns session options: `threads` within an op, ops one after the other, idle threads asleep.

    Spinning is off because the idle pools of several sessions in one process would disturb one another's measurements.
    """
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.log_severity_level = FATAL_ONLY
    return chosen


def load(path: str, threads: int, inputs: dict[str, np.ndarray]) -> Any:
    """Returns a function that makes one call, and returns the flat outputs."""
    session = ort.InferenceSession(path, options(threads), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def profile(path: str, threads: int, inputs: dict[str, np.ndarray], runs: int) -> dict[str, Any]:
    """Returns each executed node's times, op and shapes, by its name, and the model that was executed, without its weights."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = options(threads)
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(Path(folder, "profile"))
        chosen.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        for key, value in WEIGHTS_APART.items():
            chosen.add_session_config_entry(key, value)
        session = ort.InferenceSession(path, chosen, providers=["CPUExecutionProvider"])
        for _ in range(WARM_UP_RUNS + runs):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
        optimized = Path(chosen.optimized_model_filepath).read_bytes()
    return {"nodes": nodes_of(events), "optimized": base64.b64encode(optimized).decode()}


def nodes_of(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns each executed node's times without those of the warm-up, its op and its shapes, by its name, in order."""
    calls: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            calls.setdefault(name[: -len("_kernel_time")], []).append(event)
    return {
        name: {
            "us": [event["dur"] for event in found[WARM_UP_RUNS:]],
            **{key: found[0]["args"].get(key, []) for key in ("op_name", "input_type_shape", "output_type_shape")},
        }
        for name, found in calls.items()
    }
