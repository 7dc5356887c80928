"""Finds the op from which on a lowered file computes something else than its graph."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.targets._any_batch import AnyBatch
from penjing.targets._registry import Target

SAMPLES = 3
# Share of a value's norm: the same that whole files may differ by, in floating point and where values are rounded.
TOLERANCE = {False: 1e-3, True: 0.1}


def first_difference(graph: Graph, target: Target) -> str | None:
    """Returns the first op whose value differs in the file, with the user's module and line, as a sentence.

    Bisects: the graph is lowered again and again with one value in its middle as a further output. So this takes as long as a few
    lowerings, and is done only once it is known that a file is wrong.

    Args:
        graph: the graph, whose file is wrong, in any mode; it stays as it was.
        target: the target.

    Returns:
        None where no value in the middle differs, or where such a file can't be made.
    """
    nodes = [node for node in graph.program.graph.nodes if _is_compared(node)]
    was_training = graph.training
    graph.eval()
    try:
        good, wrong = -1, len(nodes)
        while wrong - good > 1:
            middle = (good + wrong) // 2
            good, wrong = (good, middle) if _differs(graph, target, nodes[middle].name) else (middle, wrong)
    except PenjingError:  # a file with this further output can't be made or run
        return None
    finally:
        graph.train(was_training)
    if wrong == len(nodes):
        return None
    node = nodes[wrong]
    module = node.meta.get("module")
    where = node.meta.get("source") or ""
    return (
        f"The first value that differs is that of '{node.target}'"
        + (f" in '{module}'" if module else "")
        + (f", at {where}" if where else "")
        + "."
    )


def _is_compared(node: fx.Node) -> bool:
    """Tells whether a node's value is a tensor of real numbers that a file can give out."""
    value = node.meta.get("val")
    rounds = getattr(node.target, "namespace", "") == "quantized_decomposed"
    return node.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point() and not rounds


def _differs(graph: Graph, target: Target, name: str) -> bool:
    tapped = graph.with_outputs([name])
    inputs = tapped.example_inputs(SAMPLES if tapped.batch is None else None)
    with torch.no_grad():
        expected = tapped.program(*inputs)[-1].double()
    rounds = any(getattr(node.target, "namespace", "") == "quantized_decomposed" for node in graph.program.graph.nodes)
    with tempfile.TemporaryDirectory() as folder:
        artifact = target.lower(tapped, Path(folder, f"model{target.suffix}"))
        named = {given.name: value.numpy() for given, value in zip(artifact.inputs, inputs, strict=True)}
        found = torch.from_numpy(AnyBatch(artifact, target.session(artifact, 1)).run(named)[-1]).double()
    if found.shape != expected.shape:
        return True
    return not float((found - expected).norm()) <= TOLERANCE[rounds] * max(float(expected.norm()), 1e-6)
