"""Stores the weights of an ONNX file in 16 bits where these hold them exactly, each with a Cast behind it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from penjing.targets._half import as_half


def store_half(path: Path) -> None:
    """Rewrites an ONNX file. Runtimes compute the casts once, when they load the file."""
    model = onnx.load(path)
    graph = model.graph
    taken = {value for node in graph.node for value in (*node.input, *node.output)} | {
        one.name for one in graph.initializer
    }
    casts = []
    for constant in graph.initializer:
        small = as_half(numpy_helper.to_array(constant)) if constant.data_type == onnx.TensorProto.FLOAT else None
        if small is None:
            continue
        wide = constant.name
        narrow = _free(f"{wide}_float16", taken)
        constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(small), narrow))
        casts.append(
            onnx.helper.make_node("Cast", [narrow], [wide], _free(f"{wide}_widened", taken), to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _free(name: str, taken: set[str]) -> str:
    """Returns the name, with a number behind it where it is taken, and takes it."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found
