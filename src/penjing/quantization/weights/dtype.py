"""Checks that a model's weights are in float32, the only dtype that can be quantised."""

import torch

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.ops import LAYERS, LOOKUPS, RECURRENT


def check_float32(graph: Graph) -> None:
    """Makes sure that some layer's weights are in float32, so that there is something to quantise.

    Raises:
        PenjingError: all weights are in half precision, bfloat16 or double precision; the message says how to convert them.
    """
    layers = [node for node in graph.program.graph.nodes if node.target in LAYERS | LOOKUPS | RECURRENT]
    read = [graph.tensor(str(n.target)) for layer in layers for n in layer.all_input_nodes if n.op == "get_attr"]
    dtypes = {tensor.dtype for tensor in read if tensor.is_floating_point()}
    if not dtypes or torch.float32 in dtypes:
        return
    names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    raise PenjingError(
        f"{graph.name} computes in {names}, and only float32 can be quantised: call model.float() before penjing.capture, and "
        "give float32 inputs. This changes no value of a float16 or bfloat16 checkpoint."
    )
