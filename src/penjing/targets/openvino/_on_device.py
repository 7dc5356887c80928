"""OpenVINO's part of a measurement. It needs the runtime and NumPy alone, and also runs on other devices."""

from typing import Any

import numpy as np
import openvino as ov

WARM_UP_RUNS = 3
CORE = ov.Core()


def version() -> str:
    """Returns the runtime's version, without the build."""
    return str(ov.__version__.partition("-")[0])


def settings(threads: int) -> dict[str, Any]:
    """Returns the settings of a model that is compiled to answer one call at a time, in float32 where it isn't quantised.

    Threads aren't pinned to cores, since several processes would pin theirs to the same ones.
    """
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }


def _compiled(path: str, inputs: dict[str, np.ndarray], chosen: dict[str, Any]) -> ov.CompiledModel:
    model = CORE.read_model(path)
    if model.is_dynamic():
        model.reshape({name: value.shape for name, value in inputs.items()})
    return CORE.compile_model(model, "CPU", chosen)


def load(path: str, threads: int, inputs: dict[str, np.ndarray]) -> Any:
    """Returns a function that makes one call, and returns the flat outputs."""
    ready = _compiled(path, inputs, settings(threads))
    request, count = ready.create_infer_request(), len(ready.outputs)

    def call() -> list[np.ndarray]:
        found = request.infer(inputs, share_inputs=True)
        return [np.array(found[port]) for port in range(count)]

    return call


def profile(path: str, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[dict[str, Any]]:
    """Returns, for each executed node in order, its name, kind, times and precision, and the ops that it stands for."""
    ready = _compiled(path, inputs, {**settings(threads), "PERF_COUNT": True})
    request = ready.create_infer_request()
    found: dict[str, dict[str, Any]] = {}
    for turn in range(WARM_UP_RUNS + runs):
        request.infer(inputs, share_inputs=True)
        for row in request.get_profiling_info():
            if turn >= WARM_UP_RUNS and row.status == ov.ProfilingInfo.Status.EXECUTED:
                node = found.setdefault(row.node_name, {"name": row.node_name, "us": []})
                node["kind"] = row.node_type
                node["us"].append(row.real_time.total_seconds() * 1e6)
    for op in ready.get_runtime_model().get_ops():
        node = found.get(op.get_friendly_name(), {})
        if node:
            info = op.get_rt_info()
            node["originals"] = str(info["originalLayersNames"].value) if "originalLayersNames" in info else ""
            node["precision"] = str(info["runtimePrecision"].value) if "runtimePrecision" in info else ""
    return list(found.values())
