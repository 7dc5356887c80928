"""Finds the values in which the channels of a group appear: the feature maps behind their activation function."""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.evidence.evidence import Evidence
from penjing.graph import Channels, Graph, Group
from penjing.graph.ops import RECURRENT

aten = torch.ops.aten

ACTIVATIONS = frozenset({
    aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp_min.default, aten.leaky_relu.default,
    aten.prelu.default, aten.elu.default, aten.celu.default, aten.selu.default, aten.gelu.default, aten.silu.default,
    aten.mish.default, aten.hardswish.default, aten.softplus.default, aten.sigmoid.default, aten.tanh.default,
})  # fmt: skip


@dataclass(frozen=True)
class GroupValue:
    """A value that holds all channels of a group.

    Attributes:
        node: name of the node that computes the value.
        axis: the axis of the channels.
        indices: `(units, copies)`, the indices of each unit along this axis.
        batch: the axis of the samples; None where samples share their axis with something else, such as heads or steps.
    """

    node: str
    axis: int
    indices: np.ndarray
    batch: int | None

    def maps(self, value: Tensor) -> Tensor:
        """Returns the channels as `(units, copies, batch, *positions)`; an unknown batch axis is taken to be the first."""
        chosen = torch.from_numpy(self.indices.ravel()).to(value.device)
        value = value.index_select(self.axis, chosen)
        value = value.movedim(self.axis, 0) if self.batch is None else value.movedim((self.axis, self.batch), (0, 1))
        return value.unflatten(0, self.indices.shape)


def sites(evidence: Evidence, group: Group, *, states: bool = False) -> tuple[GroupValue, ...]:
    """Returns the outputs of activation functions that hold a group's channels; if there are none, the inputs of layers.

    Hidden units of a recurrent layer appear in the layer's sequence of outputs, which comes from its last sublayer.
    Gates of one number per channel, as in squeeze-and-excitation, count only where no larger value exists.

    Args:
        evidence: the graph and its channels.
        group: a group of these channels.
        states: whether all outputs of a recurrent layer count, final states included, as gradients need them.

    Raises:
        PenjingError: no value holds the group's channels.
    """
    found = list(_carriers(evidence, group))
    behind = [(node, site) for node, site in found if node.target in ACTIVATIONS]
    wide = [(node, site) for node, site in behind if _positions(node, site) > 1]
    recurrent = [(node, site) for node, site in found if _output_of_recurrent(node) is not None]
    sequence = [one for one in recurrent if _output_of_recurrent(one[0]) == 0] or recurrent[:1]
    readers = {entry.tensor for entry in group.entries if entry.role == "in"}
    read = [(node, site) for node, site in found if any(_reads(user, readers) for user in node.users)]
    chosen = (recurrent if states else []) or wide or sequence or behind or read
    if not chosen:
        raise PenjingError(
            f"The channels of {group.name} can't be seen by themselves anywhere in the graph, so that this criterion "
            "can't score them; use another, or leave that module out with exclude=…."
        )
    return tuple(site for _, site in chosen)


def means(evidence: Evidence, statistic: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Returns, for each group, the mean of a statistic of its units' maps over batches, samples, positions and sites.

    Args:
        evidence: the model and the data, which are read once; only sums are kept of a batch.
        statistic: a function from maps `(units, copies, batch, *positions)` to any numbers `(units, …)`.

    Raises:
        PenjingError: there are no data, or no value holds the channels of a group.
    """
    places = [sites(evidence, group) for group in evidence.groups]
    sums = [torch.zeros(group.units, dtype=torch.float64) for group in evidence.groups]
    counts = [0] * len(sums)
    for values in evidence.values(sorted({site.node for found in places for site in found})):
        for position, found in enumerate(places):
            for site in found:
                numbers = statistic(site.maps(values[site.node])).flatten(1)
                sums[position] += numbers.sum(1).cpu()
                counts[position] += numbers.shape[1]
    return [(total / max(count, 1)).float() for total, count in zip(sums, counts, strict=True)]


def _carriers(evidence: Evidence, group: Group) -> Iterator[tuple[fx.Node, GroupValue]]:
    assert evidence.channels is not None
    channels: Channels = evidence.channels
    unit_of = np.full(int(channels.class_of.max()) + 1, -1)
    unit_of[group.classes] = np.arange(group.units)
    computed: set[fx.Node] = set()  # from inputs' values: the first states of recurrent layers aren't
    for node in evidence.graph.program.graph.nodes:
        axes, value = channels.labels.get(node), node.meta.get("val")
        if node.op == "placeholder" or (
            isinstance(value, Tensor | list | tuple) and not computed.isdisjoint(node.all_input_nodes)
        ):
            computed.add(node)
        if (
            node.op != "call_function"
            or node not in computed
            or not (isinstance(axes, tuple) and isinstance(value, Tensor))
        ):
            continue
        for axis, labels in enumerate(axes):
            if axis == 0 or labels is None or value.shape[axis] != labels.size:
                continue
            units = unit_of[channels.class_of[labels]]
            counts = np.bincount(units[units >= 0], minlength=group.units)
            if counts[0] > 0 and (counts == counts[0]).all():
                order = units.argsort(kind="stable")[(units < 0).sum() :]
                samples = _batch_axis(evidence.graph, value, axis)
                yield node, GroupValue(node.name, axis, order.reshape(group.units, -1), samples)


def _batch_axis(graph: Graph, value: Tensor, channels: int) -> int | None:
    """Returns the only axis, besides the channels', that is as long as the inputs' first axis; None if there isn't one."""
    inputs = [node.meta["val"].shape[0] for node in graph.program.graph.nodes if node.op == "placeholder"]
    samples = next((size for size in inputs if isinstance(size, torch.SymInt)), inputs[0])
    if not isinstance(samples, torch.SymInt):  # with a fixed batch size, other axes may be as long
        return 0 if value.shape[0] == samples else None
    found = [axis for axis, size in enumerate(value.shape) if axis != channels and _same(size, samples)]
    return found[0] if len(found) == 1 else None


def _same(size: Any, samples: torch.SymInt) -> bool:
    # Comparing symbolic sizes directly would fix them to numbers.
    return isinstance(size, torch.SymInt) and size.node.expr == samples.node.expr


def _output_of_recurrent(node: fx.Node) -> int | None:
    """Returns the position of a node among the outputs of its recurrent layer."""
    if node.target is not operator.getitem:
        return None
    source, position = node.args
    return position if isinstance(source, fx.Node) and source.target in RECURRENT else None  # type: ignore[return-value]


def _positions(node: fx.Node, site: GroupValue) -> int:
    """Returns the number of values per sample and channel; each dynamic size counts as 2."""
    shape = node.meta["val"].shape
    sizes = [size for axis, size in enumerate(shape) if axis not in (site.axis, site.batch or 0)]
    return int(np.prod([size if isinstance(size, int) else 2 for size in sizes], initial=1))


def _reads(node: fx.Node, names: set[str]) -> bool:
    return any(source.op == "get_attr" and str(source.target) in names for source in node.all_input_nodes)
