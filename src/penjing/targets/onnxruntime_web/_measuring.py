"""What onnxruntime-web really executes, node by node, from its own profile; and the memory of a process that runs a model."""

import json
import sys

import numpy as np
from onnx import TensorProto, helper

from penjing.errors import PenjingError
from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.bench import MEMORY_CALLS
from penjing.targets.onnxruntime._events import rows_of
from penjing.targets.onnxruntime._on_device import WARM_UP_RUNS
from penjing.targets.onnxruntime_web._engine import Engine, described, engine, packed, version
from penjing.targets.onnxruntime_web._session import check_threads


def profile(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int) -> list[ExecutedNode]:
    """Returns every executed node in order; see `ExecutedNode`.

    Raises:
        PenjingError: this version of onnxruntime-web prints no profile.
    """
    check_threads(threads)
    file = artifact.path.read_bytes()
    asked = {"do": "profile", "size": len(file), "inputs": described(inputs), "warmUp": WARM_UP_RUNS, "runs": runs}
    answer, _ = engine().ask(asked, [file, packed(inputs)])
    try:
        events = json.loads(answer["printed"])
    except ValueError as error:
        raise PenjingError(
            f"onnxruntime-web {version()} prints no profile in the form that version 1.30.0 prints it: {error}."
        ) from error
    return rows_of(events, artifact.path)


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of a process of Node, those of them that came after the runtime), or None off Linux."""
    check_threads(threads)
    if sys.platform != "linux":
        return None
    file, tiny = artifact.path.read_bytes(), _tiny()
    asked = {"do": "memory", "tiny": len(tiny), "size": len(file), "inputs": described(inputs), "runs": MEMORY_CALLS}
    fresh = Engine()
    try:
        answer, _ = fresh.ask(asked, [tiny, file, packed(inputs)])
    finally:
        fresh.close()
    peak, own = answer["memory"]
    return peak, own


def _tiny() -> bytes:
    """Returns a model that only passes a number on."""
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "tiny", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
