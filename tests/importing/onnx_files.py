"""Small ONNX files for tests."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(bool): TensorProto.BOOL,
}


def write(path, nodes, inputs, constants=None, outputs=("y",), opset=17, **model):
    """Writes a file.

    Args:
        path: where to.
        nodes: its nodes.
        inputs: shapes, or pairs of a shape and an element type, by name; texts are free axes.
        constants: arrays by name.
        outputs: names.
        opset: of ONNX's own ops.
        model: further arguments of `make_model`.
    """
    given = []
    for name, shape in inputs.items():
        kind = TensorProto.FLOAT
        if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[0], list):
            shape, kind = shape
        given.append(helper.make_tensor_value_info(name, kind, shape))
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", given, results, tensors)
    imports = [
        helper.make_opsetid("", opset),
        helper.make_opsetid("ai.onnx.ml", 3),
        helper.make_opsetid("com.microsoft", 1),
    ]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9, **model), str(path))
    return path


def node(op, inputs, outputs=("y",), name="", domain="", **attributes):
    """Returns a node."""
    return helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **attributes)
