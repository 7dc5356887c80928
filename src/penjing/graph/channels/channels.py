"""Finds which slices of which tensors must be removed together: labels every index, ties labels, groups the classes.

The walk passes the labels of each op's inputs to the op's rule and knows no op by name. Labels that rules tie together
form a *unit*, which is removed or kept as a whole. Units with the same number of indices in the same axes form a
*group*.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from penjing.checks import PATTERNS, TEXT, checked
from penjing.errors import unknown_name
from penjing.graph.channels.labelling import Cut, Labeller
from penjing.graph.channels.no_channels import classes_of, no_channels
from penjing.graph.channels.rules import Axes, Value
from penjing.graph.doors import GRAPH
from penjing.graph.graph import Graph
from penjing.graph.patterns import check_patterns, matches
from penjing.lines import html_table

UNITS = ("auto", "heads", "features")
UNMADE = "no layer makes it"
UNSAID = "a pinned axis"


@dataclass(frozen=True)
class AxisEntry:
    """The indices of a group's units along one axis of one tensor.

    Attributes:
        tensor: the tensor's name.
        axis: the axis.
        role: "out" (the axis makes the channels), "in" (the axis reads them), "scale", "shift", "statistic" or "other".
        indices: `(units, copies)`, the indices along the axis that belong to each unit.
    """

    tensor: str
    axis: int
    role: str
    indices: np.ndarray


@dataclass(frozen=True)
class Group:
    """Units that are alike: removing any one of them shrinks the same tensors by the same amount.

    Attributes:
        name: the module that makes the channels; the first one if there are several.
        entries: the units' indices in each axis.
        classes: `(units,)`, the class of labels of each unit.
        params: number of parameters that one unit holds.
    """

    name: str
    entries: tuple[AxisEntry, ...]
    classes: np.ndarray
    params: int

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.classes)

    def made_by(self) -> tuple[str, ...]:
        """The names of the weights whose output axes make these channels."""
        return tuple(entry.tensor for entry in self.entries if entry.role == "out")


@dataclass(frozen=True)
class Pinned:
    """An axis of a parameter some of whose indices must stay, with the first op that requires it.

    Attributes:
        tensor: the parameter's name.
        axis: the axis.
        indices: the number of indices that must stay.
        op: the op that pinned them, "input", "output", or the pattern that excluded them.
        source: the user's line of that op; where the cause is that no layer makes the channels, the first line that
            uses the parameter.
    """

    tensor: str
    axis: int
    indices: int
    op: str
    source: str


@dataclass(repr=False)
class Channels:
    """The channels of a graph.

    Attributes:
        groups: the removable units by group, in order of execution.
        pinned: the indices that must stay, and why.
        labels: labels of each node's output axes (a list of `Axes` for ops with several outputs).
        class_of: class of each label.
        tensors: labels of each tensor's axes.
        unequal: pairs of axes' labels of which the first axis must stay longer than the second.
        unlabelled: nodes of ops that have no rule, or whose rule doesn't cover the call, with the reason: all indices
            that such a node reads or makes must stay.
    """

    groups: tuple[Group, ...]
    pinned: tuple[Pinned, ...]
    labels: dict[fx.Node, Any]
    class_of: np.ndarray
    tensors: dict[str, Axes]
    unequal: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    unlabelled: frozenset[fx.Node] = frozenset()

    def __str__(self) -> str:
        """A line per group, then a line per cause for what must stay; `penjing channels` and `graph.explain` say more."""
        lines = [f"{len(self.groups)} groups of channels:"]
        lines += [
            f"  {group.name}: {group.units} units, each with {group.params:,} parameters" for group in self.groups
        ]
        causes: dict[str, list[str]] = {}
        for pin in self.pinned:
            causes.setdefault(f"{pin.op} {pin.source}".strip(), []).append(f"{pin.indices} of {pin.tensor}[{pin.axis}]")
        lines += ["What must stay:"] if causes else []
        lines += [
            f"  {', '.join(held[:3])}{f' and {len(held) - 3} more' if len(held) > 3 else ''}: {why}"
            for why, held in causes.items()
        ]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [(one.name, f"{one.units:,}", f"{one.params:,}") for one in self.groups]
        notes = [f"{pin.indices} of {pin.tensor}[{pin.axis}] must stay: {pin.op} {pin.source}" for pin in self.pinned]
        title = f"{len(rows)} groups of channels"
        return html_table(title, ("Group", "Units", "Parameters of a unit"), rows, notes)


@checked(graph=GRAPH, include=PATTERNS, exclude=PATTERNS, units=TEXT)
def channels(
    graph: Graph, *, include: Sequence[str] = (), exclude: Sequence[str] = (), units: str = "auto"
) -> Channels:
    """Labels every index of every axis of `graph` and returns its groups of removable units.

    Args:
        graph: a captured graph.
        include: patterns of module paths (`layer1.*`); if given, only channels that a matching module makes are groups.
            Axes that only look like channels stay unless their module is named here in full (`include=["*", "bins"]`):
            the classes of a softmax, unless another op makes the same channels, and axes that only a constant in a
            buffer makes or reads, such as the bands of a filterbank and the bins of an expectation.
        exclude: patterns of module paths whose channels must all stay.
        units: the units where a view splits channels into several axes, as attention does: "heads" (whole heads),
            "features" (the same features of every head), or "auto": the longest axis of each view, or "heads" or
            "features" if removing half of all units would then leave fewer parameters.

    Raises:
        PenjingError: a pattern matches no module, or `units` has another value.
    """
    if units not in UNITS:
        raise unknown_name("units", units, UNITS)
    check_patterns(graph, [*include, *exclude])
    explorer = _walked(Labeller(graph, units, exploring=True))
    if not explorer.ambiguous:
        return _collect(graph, explorer, include, exclude)
    stuck = _stuck(explorer)
    found = [
        _collect(graph, _walked(Labeller(graph, one, stuck=stuck)), include, exclude)
        for one in (UNITS if units == "auto" else [units])
    ]
    return min(found, key=lambda one: _left(graph, one))


def _walked(labeller: Labeller) -> Labeller:
    labeller.walk()
    return labeller


def _stuck(explorer: Labeller) -> frozenset[Cut]:
    """Returns the axes of splits that can't carry channels, since later ops pin all of their indices.

    In an exploring walk every axis of a split has its own labels, and a later merge of axes doesn't join them with
    others. So the walk shows for each axis separately whether it can carry channels.
    """
    class_of = explorer.classes()
    pinned = np.zeros(class_of.max() + 1, bool)
    for labels, _ in explorer.pins:
        pinned[class_of[labels.ravel()]] = True
    return frozenset(cut for cut, labels in explorer.cuts.items() if pinned[class_of[labels]].all())


def _left(graph: Graph, found: Channels) -> int:
    """Returns the number of parameters that are left when half of the units of every group are removed."""
    gone = np.zeros(int(found.class_of.max()) + 1, bool)
    for group in found.groups:
        gone[group.classes[: group.units // 2]] = True
    axes_of = {id(graph.tensor(name)): axes for name, axes in found.tensors.items()}  # tied parameters count once
    return sum(
        math.prod(int((~gone[found.class_of[labels]]).sum()) for labels in axes_of.get(id(parameter), ()))
        for parameter in graph.parameters()
    )


def _collect(graph: Graph, labeller: Labeller, include: Sequence[str], exclude: Sequence[str]) -> Channels:
    class_of = labeller.classes()
    reason = np.full(class_of.max() + 1, -1)
    reasons: list[tuple[str, str]] = []

    def pin(classes: np.ndarray, op: str, source: str) -> None:
        reasons.append((op, source))
        classes = classes[reason[classes] < 0]
        reason[classes] = len(reasons) - 1

    pin(class_of[:1], UNSAID, "")
    for labels, node in labeller.pins:
        pin(class_of[labels.ravel()], _why(node, labeller), _where(node))
    for pattern in exclude:
        for labels in labeller.made_by(lambda path, pattern=pattern: matches(path, [pattern])):
            pin(class_of[labels], f"exclude={pattern}", "")
    if include:
        wanted = classes_of(labeller.made_by(lambda path: matches(path, include)), class_of, len(reason))
        pin(np.flatnonzero(~wanted), f"include={','.join(include)}", "")
    made_by_layer = classes_of(labeller.made_by(lambda path: True), class_of, len(reason))
    pin(np.flatnonzero(~made_by_layer), UNMADE, "")
    named = classes_of(labeller.made_by(lambda path: path in include), class_of, len(reason))
    for classes, op, said_by in no_channels(graph, labeller, class_of, reason < 0):
        pin(classes[~named[classes]], op, "" if said_by is None else _where(said_by))
    slots = _slots(graph, labeller)
    groups = _groups(graph, slots, labeller, class_of, reason < 0)
    pinned = _pinned(graph, slots, labeller, class_of, reason, reasons)
    labels_of = {
        n: [_axes(v) for v in value] if isinstance(value, list) else _axes(value)
        for n, value in labeller.values.items()
    }
    return Channels(
        groups, pinned, labels_of, class_of, labeller.tensors, tuple(labeller.unequals), frozenset(labeller.unlabelled)
    )


def _axes(value: Any) -> Axes:
    return value.axes if isinstance(value, Value) else ()


def _why(node: fx.Node, labeller: Labeller) -> str:
    if node.op != "call_function":
        return {"placeholder": "input", "output": "output"}.get(node.op, str(node.target))
    why = labeller.unlabelled.get(node, "no rule")
    return str(node.target) if why == "no rule" else f"{node.target} ({why})"


def _where(node: fx.Node) -> str:
    """Returns the user's line, or the module where no line is the user's, as in a plain `nn.Sequential`."""
    module = node.meta.get("module", "")
    return str(node.meta.get("source", "") or (f"module {module}" if module else ""))


Slot = tuple[str, int]


def _slots(graph: Graph, labeller: Labeller) -> list[Slot]:
    """Returns the axes of all tensors; tied tensors count once."""
    seen: set[int] = set()
    slots = []
    for name, axes in labeller.tensors.items():
        if id(graph.tensor(name)) in seen:
            continue
        seen.add(id(graph.tensor(name)))
        slots += [(name, axis) for axis in range(len(axes))]
    return slots


def _groups(
    graph: Graph, slots: list[Slot], labeller: Labeller, class_of: np.ndarray, removable: np.ndarray
) -> tuple[Group, ...]:
    """Groups units with the same footprint: the same number of indices in the same axes."""
    footprint = np.zeros(len(removable), np.uint64)
    hashes = np.random.default_rng(0).integers(1, 2**63, len(slots), np.uint64)
    for code, (name, axis) in zip(hashes, slots, strict=True):
        np.add.at(footprint, class_of[labeller.tensors[name][axis]], code)
    units = np.flatnonzero(removable & (footprint != 0))
    _, group_of_unit = np.unique(footprint[units], return_inverse=True)
    group_of = np.full(len(removable), -1)
    group_of[units] = group_of_unit
    entries: dict[int, list[AxisEntry]] = {}
    for name, axis in slots:
        classes = class_of[labeller.tensors[name][axis]]
        groups = group_of[classes]
        order = np.lexsort((classes, groups))
        starts = np.flatnonzero(np.diff(groups[order], prepend=-2))
        role = labeller.roles.get((name, axis), "other")
        for positions in np.split(order, starts[1:]):
            if positions.size and (group := int(groups[positions[0]])) >= 0:
                count = 1 + int(np.count_nonzero(np.diff(classes[positions])))
                entries.setdefault(group, []).append(AxisEntry(name, axis, role, positions.reshape(count, -1)))
    result = []
    for group, found in entries.items():
        members = units[group_of_unit == group]
        made = [e for e in found if e.role == "out"] or found
        params = _params_per_unit(graph, found)
        result.append(Group(made[0].tensor.rpartition(".")[0] or made[0].tensor, tuple(found), members, params))
    return tuple(result)


def _params_per_unit(graph: Graph, entries: list[AxisEntry]) -> int:
    """Counts the parameters that one unit holds; entries of a weight that both makes and reads the unit count once."""
    axes: dict[str, dict[int, int]] = {}
    for entry in entries:
        axes.setdefault(entry.tensor, {})[entry.axis] = entry.indices.shape[1]
    params = 0
    for name, gone in axes.items():
        tensor = graph.tensor(name)
        if isinstance(tensor, torch.nn.Parameter):
            params += tensor.numel() - math.prod(size - gone.get(axis, 0) for axis, size in enumerate(tensor.shape))
    return params


def _pinned(
    graph: Graph,
    slots: list[Slot],
    labeller: Labeller,
    class_of: np.ndarray,
    reason: np.ndarray,
    reasons: list[tuple[str, str]],
) -> tuple[Pinned, ...]:
    users = {str(n.target): n.users for n in graph.program.graph.nodes if n.op == "get_attr"}
    first_use = {name: _where(next(iter(nodes))) for name, nodes in users.items() if nodes}
    found = []
    for name, axis in slots:
        why = reason[class_of[labeller.tensors[name][axis]]]
        if (name, axis) in labeller.roles and (why >= 0).any():
            op, source = reasons[why[why >= 0][0]]
            if op in (UNMADE, UNSAID):
                source = first_use.get(name, "")
            found.append(Pinned(name, axis, int((why >= 0).sum()), op, source))
    return tuple(found)
