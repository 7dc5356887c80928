"""The exits of a network: where they stand, and the small heads that answer there."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from penjing.distillation.taps import ends_of_blocks, found_node
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer
from penjing.graph.edit.split import ancestors, crossing, rounded_value
from penjing.graph.ops import LAYERS, aten

HALF = (torch.float16, torch.bfloat16)
CELLS = 4  # cells along each axis of the grid over which a head pools, as in Kaya et al.


def places(graph: Graph, at: str | Sequence[str]) -> list[str]:
    """Returns the nodes behind which exits stand, in order of execution.

    Args:
        graph: the network.
        at: "auto", or names of modules or nodes.

    Raises:
        PenjingError: a name is unknown or means the same place as another, the network has no stages, or nothing is saved by
            leaving there.
    """
    nodes = {node.name: place for place, node in enumerate(graph.program.graph.nodes)}
    asked = stage_ends(graph) if at == "auto" else [at] if isinstance(at, str) else list(at)
    if not asked:
        raise PenjingError(
            "No stages were found at whose ends the network could be left: name modules or nodes, at=['layer1', 'layer2']."
        )
    found: dict[str, str] = {}
    for name in asked:
        node = _on_grid(graph, found_node(graph, name))
        if node in found:
            raise PenjingError(f"at={list(asked)}: '{found[node]}' and '{name}' end at the same place: leave one out.")
        found[node] = name
        _check_behind(graph, node, name)
    return sorted(found, key=lambda node: nodes[node])


def _on_grid(graph: Graph, name: str) -> str:
    """Returns the value of a quantised network that is rounded first from a node on, with nothing but activations between.

    A runtime computes in integers up to there alone: it fuses a layer, its activation and the quantiser behind them.
    """
    node = start = next(one for one in graph.program.graph.nodes if one.name == name)
    while rounded_value(node) is node and len(node.users) == 1:
        (node,) = node.users
        alone = node.op == "call_function" and sum(one.op != "get_attr" for one in node.all_input_nodes) == 1
        if not alone or node.target in LAYERS or _shape(node) != _shape(start):
            return name
    return str(node.name) if rounded_value(node) is not node else name


def _shape(node: fx.Node) -> tuple[str, ...]:
    value = node.meta.get("val")
    return tuple(map(str, value.shape)) if isinstance(value, Tensor) else ()


def stage_ends(graph: Graph) -> list[str]:
    """Returns the last block's end of each resolution but the last; of equal resolutions throughout, the ends of two thirds."""
    ends = ends_of_blocks(graph)
    last = {resolution: name for name, resolution in ends}
    if len(last) > 1:
        return list(last.values())[:-1]
    return [ends[share * len(ends) // 3 - 1][0] for share in (1, 2)] if len(ends) > 2 else []


def _check_behind(graph: Graph, node: str, name: str) -> None:
    """Makes sure that enough follows an exit.

    Raises:
        PenjingError: no layer follows but the last, or the place isn't on the way to the outputs.
    """
    outputs = own_outputs(graph)
    macs = {row.node: row.macs for row in graph.cost().rows}
    before = ancestors([one for one in graph.program.graph.nodes if one.name == node])
    rest = [one.name for one in ancestors(outputs) - before if macs.get(one.name, 0) > 0]
    if len(rest) < 2:
        raise PenjingError(
            f"An exit at '{name}' stands behind the last layer, or has that layer alone behind it: leaving there saves nothing. "
            "Name a module nearer to the inputs."
        )
    crossing(graph, node, outputs)


def own_outputs(graph: Graph) -> list[fx.Node]:
    """Returns the nodes of a graph's outputs.

    Raises:
        PenjingError: there isn't just one, of logits `(N, classes)`, or the network computes in 16 bits.
    """
    outputs = list(graph.program.graph.output_node().args[0])  # type: ignore[arg-type]
    value = outputs[0].meta["val"] if outputs and isinstance(outputs[0], fx.Node) else None
    if len(outputs) != 1 or not isinstance(value, Tensor) or value.dim() != 2 or not value.is_floating_point():
        raise PenjingError("An early exit must tell how sure it is: the network needs one output, logits (N, classes).")
    if int(value.shape[1]) < 2:
        raise PenjingError(
            "The network has a single output per sample, of which no confidence follows: it needs two classes."
        )
    if value.dtype in HALF or any(one.dtype in HALF for one in graph.parameters()):
        raise PenjingError(
            "The network computes in 16 bits, in which the heads of exits don't learn: capture the model in float32, "
            "pj.capture(model.float(), example), and quantise it for speed."
        )
    return outputs


def add_head(graph: Graph, node: str, name: str, classes: int) -> fx.Node:
    """Writes a head behind a node: mean and maximum over a grid of cells, and a linear layer, whose weights begin at zero.

    Args:
        graph: is changed; `refresh` comes later.
        node: the node's name.
        name: of the head's module.
        classes: number of outputs.

    Returns:
        The node of the logits `(N, classes)`.
    """
    value = rounded_value(next(one for one in graph.program.graph.nodes if one.name == node))
    write, shape = Writer.after(value), value.meta["val"].shape
    sizes = list(shape[2:])
    if len(sizes) == 2 and all(isinstance(size, int) for size in sizes):
        cells = [max(1, size // CELLS) for size in sizes]
        parts = [write(pool, value, cells, cells) for pool in (aten.avg_pool2d.default, aten.max_pool2d.default)]
        features = int(shape[1]) * 2 * (sizes[0] // cells[0]) * (sizes[1] // cells[1])
        pooled = write(aten.flatten.using_ints, write(aten.cat.default, parts, 1), 1)
    elif sizes:
        axes, features = ([1], int(shape[2])) if len(shape) == 3 else (list(range(2, len(shape))), int(shape[1]))
        pooled = write(aten.mean.dim, value, axes)
    else:
        pooled, features = value, int(shape[1])
    like = {"device": next(graph.parameters()).device, "dtype": value.meta["val"].dtype}
    weights = {"weight": (classes, features), "bias": (classes,)}
    for leaf, size in weights.items():
        graph.set_tensor(f"{name}.{leaf}", nn.Parameter(torch.zeros(size, **like)))
    logits = write(aten.linear.default, pooled, *(write.fetch(f"{name}.{leaf}") for leaf in weights))
    for one in (pooled, logits):
        one.meta["module"] = name
    return logits
