"""What a file's notes say of a graph: the captured inputs, and how its outputs are nested; and the names of flat outputs."""

import logging
from typing import Any

from torch.utils import _pytree as pytree

from penjing.graph import Graph


def output_names(graph: Graph) -> list[str]:
    """Returns the outputs' names, made of the keys and positions in the model's nesting: "output", "output_1", "logits"."""
    count = graph.out_spec.num_leaves
    placeholders = pytree.tree_unflatten(list(range(count)), graph.out_spec)
    names = []
    for path, _ in pytree.tree_flatten_with_path(placeholders)[0]:
        label = "_".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path)
        names.append(label if label and not label[0].isdigit() else f"output_{label}".rstrip("_"))
    taken = set(graph.input_names)
    return [f"{name}_out" if name in taken else name for name in names]


def file_notes(graph: Graph, batch: int | None = None) -> dict[str, Any]:
    """Returns the facts that a runtime doesn't know and `FileNotes` reads.

    Args:
        graph: the graph that is written.
        batch: samples of a call, for a target whose files fix a batch that is free in the graph; None keeps the example's.
    """
    nested = _nesting(graph)
    inputs = {"inputs": input_notes(graph, batch)}
    return inputs if nested is None else {**inputs, "outputs": nested}


def input_notes(graph: Graph, batch: int | None = None) -> list[dict[str, Any]]:
    """Returns the shape and the ranges of each input's example; `batch` as in `file_notes`."""
    found = []
    for given in graph.inputs:
        example = list(given.shape)
        if batch is not None and graph.batch is None and 0 in given.dynamic:
            example[0] = batch
        found.append({"example": example, **given.ranges.to_json()})
    return found


def _nesting(graph: Graph) -> str | None:
    """Returns the outputs' nesting as PyTorch writes it; None for a single tensor, and where a container can't be written."""
    if graph.out_spec.is_leaf():
        return None
    try:
        return pytree.treespec_dumps(graph.out_spec)
    except NotImplementedError:  # a container type of the user's own: outputs come flat, as documented
        logging.getLogger(__name__).info("The outputs' nesting can't be stored; they will come as a flat tuple.")
        return None
