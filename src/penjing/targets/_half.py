"""Files whose float weights take 16 bits each; a runtime widens them to 32 when it loads the file, and computes as before.

Weights are rounded in the graph. Then each constant of the written file that 16 bits hold exactly is stored in 16 bits, so that
the file computes what the rounded graph does, to the last bit.
"""

import copy

import numpy as np
import torch

from penjing.errors import PenjingError
from penjing.graph import Graph, fold_batch_norms
from penjing.graph.memory import is_rounding
from penjing.targets._registry import Target

LEAST = 256  # entries of a constant from which widening it is worth an op in the file


def halved(graph: Graph) -> Graph:
    """Returns a graph whose float32 weights are rounded to the nearest 16-bit floats, in which batch norms are folded.

    Weights that are rounded to integers stay, as do those beyond the largest 16-bit float, 65504, and vectors, such as biases.
    """
    ready = copy.deepcopy(fold_batch_norms(graph))
    for node in ready.program.graph.nodes:
        if node.op != "get_attr" or any(is_rounding(user) for user in node.users):
            continue
        tensor = ready.tensor(str(node.target))
        if tensor.dtype == torch.float32 and tensor.dim() > 1 and tensor.numel() >= LEAST:
            with torch.no_grad():
                rounded = tensor.half().float()
                if rounded.isfinite().all():
                    tensor.copy_(rounded)
    return ready


def as_half(array: np.ndarray) -> np.ndarray | None:
    """Returns the same values in 16 bits; None where these don't hold them exactly, or where the array is too small."""
    if array.dtype != np.float32 or array.size < LEAST or array.ndim < 2:
        return None
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    return small if np.array_equal(small.astype(np.float32), array) else None


def check_stores_half(target: Target) -> None:
    """Refuses a target whose files can't hold float weights in 16 bits.

    Raises:
        PenjingError: they can't.
    """
    if target.store_half is None:
        raise PenjingError(
            f"Files for '{target.name}' hold float weights in 32 bits alone: leave weights='float16', or --float16, out, or "
            "quantise the graph for a small file, penjing.quantize(graph, data)."
        )
