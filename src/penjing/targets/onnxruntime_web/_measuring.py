"""What onnxruntime-web really executes, node by node, from its own profile; and the memory of a process that runs a model."""

import json
import statistics

import numpy as np
from onnx import TensorProto, helper

from penjing.errors import PenjingError
from penjing.targets._records import Artifact, ExecutedNode
from penjing.targets.bench import Job
from penjing.targets.onnxruntime._events import rows_of
from penjing.targets.onnxruntime._on_device import WARM_UP_RUNS
from penjing.targets.onnxruntime_web._engine import Place, described, packed
from penjing.targets.onnxruntime_web._package import PACKAGE
from penjing.targets.onnxruntime_web._session import bench_at, check_threads


def profile(
    artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], runs: int, place: Place
) -> list[ExecutedNode]:
    """Returns every executed node in order; see `ExecutedNode`. Where ops take no time of their own, the model is one node.

    Raises:
        PenjingError: this version of onnxruntime-web prints no profile.
    """
    check_threads(threads)
    if not place.layers:
        seconds = bench_at(place).times({"model": Job(artifact, inputs, threads)}, runs, 0.0)["model"]
        return [ExecutedNode("model", "model", None, None, 1e6 * statistics.median(seconds), integer=False, macs=0)]
    file = artifact.path.read_bytes()
    asked = {"do": "profile", "size": len(file), "inputs": described(inputs), "warmUp": WARM_UP_RUNS, "runs": runs}
    answer, _ = place.engine().ask(asked, [file, packed(inputs)])
    try:
        events = json.loads(answer["printed"])
    except ValueError as error:
        raise PenjingError(
            f"{PACKAGE} {place.version()} prints no profile in the form that version 1.30.0 prints it: {error}."
        ) from error
    return rows_of(events, artifact.path)


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray], place: Place) -> tuple[int, int] | None:
    """Returns (peak resident bytes of a fresh process, those of them that came after the runtime), or None off Linux."""
    check_threads(threads)
    return place.memory(_tiny(), artifact.path.read_bytes(), inputs)


def _tiny() -> bytes:
    """Returns a model that only passes a number on."""
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "tiny", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
