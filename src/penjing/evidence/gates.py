"""Gates that multiply the output of a unit or a residual branch: 1 leaves the output as it is, 0 removes it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from penjing.evidence.evidence import Evidence
from penjing.evidence.feature_maps import sites
from penjing.evidence.reader import Inputs
from penjing.graph import AxisEntry, Graph, Group
from penjing.graph.ops import RECURRENT
from penjing.graph.taps import Change


def gate_entries(evidence: Evidence, group: Group) -> list[AxisEntry]:
    """Returns the entries of parameters that a gate on each of a group's units multiplies.

    These are the scales and shifts of the norms behind the unit, or, without norms, the weights and biases that compute
    it. The weights of a recurrent layer compute gates and candidates, not the hidden state; there the entries are the
    weights that read the state, in the next step and in later layers.
    """
    roles: tuple[str, ...] = ("out", "shift")
    if any(entry.role == "scale" for entry in group.entries):
        roles = ("scale", "shift")
    elif not _recurrent(evidence.graph).isdisjoint(group.made_by()):
        roles = ("in",)
    return [entry for entry in group.entries if entry.role in roles]


def gated_units(evidence: Evidence, gates: Sequence[Tensor]) -> dict[str, Change]:
    """Returns, for each node that fetches a parameter, the function that multiplies it by its units' gates.

    Args:
        evidence: the graph and its groups.
        gates: `(units,)` for each group.
    """
    entries: dict[int, list[tuple[AxisEntry, Tensor]]] = {}
    for group, gate in zip(evidence.groups, gates, strict=True):
        for entry in gate_entries(evidence, group):
            entries.setdefault(id(evidence.graph.tensor(entry.tensor)), []).append((entry, gate))

    def change(found: Sequence[tuple[AxisEntry, Tensor]]) -> Change:
        def multiplied(value: Tensor, _: Sequence[Any]) -> Tensor:
            for entry, gate in found:
                value = value * _along(entry, gate, value)
            return value

        return multiplied

    nodes = evidence.graph.program.graph.nodes
    fetched = {node.name: id(evidence.graph.tensor(str(node.target))) for node in nodes if _fetches(node)}
    return {name: change(entries[tensor]) for name, tensor in fetched.items() if tensor in entries}


def gated_branches(evidence: Evidence, gate: Tensor) -> dict[str, Change]:
    """Returns, for each node that adds a branch, the function that multiplies the branch by its gate.

    Args:
        evidence: the graph and its branches.
        gate: `(branches,)`.
    """

    def change(position: int, identity: int) -> Change:
        def scaled(value: Tensor, arguments: Sequence[Any]) -> Tensor:
            return torch.lerp(arguments[identity], value, gate[position].to(value))

        return scaled

    return {branch.addition: change(i, branch.identity) for i, branch in enumerate(evidence.branches)}


def gate_slopes(
    evidence: Evidence, disturb: Callable[[Callable[[Inputs], Tensor], Inputs], Inputs] | None = None
) -> Iterator[list[Tensor]]:
    """Yields, for each batch, the derivative of each sample's loss by each unit's gate: Σ a ∂L/∂a over the unit's positions.

    Samples run one by one where a group's units appear only in values whose samples share their axis with something else.

    Args:
        evidence: the model and the data.
        disturb: returns inputs to use instead, from the loss as a function of inputs and the batch's inputs.

    Yields:
        `(units, samples)` for each group, on the CPU.

    Raises:
        PenjingError: there is no labelled data, or no value holds the channels of a group.
    """
    places = [sites(evidence, group, states=True) for group in evidence.groups]
    singly = any(site.batch is None for found in places for site in found)
    nodes = sorted({site.node for found in places for site in found})
    for values, slopes in evidence.slopes(nodes, singly=singly, disturb=disturb):
        batch = []
        for found in places:
            parts = []
            for site in found:
                maps = site.maps(values[site.node] * slopes[site.node])
                rows = maps.flatten(1)[:, None] if singly else maps.transpose(1, 2).flatten(2)
                parts.append((rows.sum(2) * rows.shape[1]).cpu())  # the loss is a mean over samples
            batch.append(torch.stack(parts).sum(0))
        yield batch


def _along(entry: AxisEntry, gate: Tensor, value: Tensor) -> Tensor:
    """Returns the gates along a tensor's axis, in a shape to broadcast; 1 at indices without a gate."""
    indices = torch.from_numpy(entry.indices).to(value.device)
    each = gate.to(value)[:, None].expand(indices.shape).flatten()
    factors = torch.ones(value.shape[entry.axis], dtype=value.dtype, device=value.device)
    shape = [1] * value.dim()
    shape[entry.axis] = -1
    return factors.index_copy(0, indices.flatten(), each).reshape(shape)


def _recurrent(graph: Graph) -> set[str]:
    """Returns the names of the weights of recurrent layers."""
    return {
        str(source.target)
        for node in graph.program.graph.nodes
        if node.target in RECURRENT
        for source in node.all_input_nodes
        if _fetches(source)
    }


def _fetches(node: fx.Node) -> bool:
    return node.op == "get_attr"
