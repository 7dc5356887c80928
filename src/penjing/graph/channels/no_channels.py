"""Finds axes that look like channels but aren't: a layer makes them and an op reads them, but each index has a fixed meaning.

The classes of a softmax share a sum of one. The bands of a filterbank and the bins of an expectation are listed in a
constant. A network without one of these indices would compute something else.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import fx

from penjing.graph.channels.labelling import Labeller
from penjing.graph.channels.rules import Value
from penjing.graph.graph import Graph

MADE_BY_CONSTANT = "a constant makes them"
READ_BY_CONSTANT = "a constant alone reads them"
SHARED = "what is left would share what it had"


def no_channels(
    graph: Graph, labeller: Labeller, class_of: np.ndarray, free: np.ndarray
) -> Iterator[tuple[np.ndarray, str, fx.Node | None]]:
    """Yields classes of labels that aren't channels, with the reason, and the op that shows it or None.

    Args:
        graph: the graph.
        labeller: the labeller after its walk over the graph.
        class_of: the class of each label.
        free: `(classes,)`, whether nothing has required a class to stay so far.
    """

    def at(role: str, constant: bool) -> np.ndarray:
        axes = [
            labeller.tensors[name][axis]
            for (name, axis), one in labeller.roles.items()
            if one == role and isinstance(graph.tensor(name), torch.nn.Parameter) is not constant
        ]
        return classes_of([labels for labels in axes if labels is not None], class_of, len(free))

    shared = [(labels, node, ties) for labels, node, ties in labeller.shared if free[class_of[labels]].any()]
    besides_of: dict[tuple[int, ...], np.ndarray] = {}  # softmaxes over the same classes are examined once
    for labels, node, _ in shared:
        here = classes_of([labels], class_of, len(free))
        of_one_kind = tuple(place for place, one in enumerate(shared) if here[class_of[one[0]]].any())
        if of_one_kind not in besides_of:
            besides_of[of_one_kind] = _made_besides(labeller, class_of, [shared[place] for place in of_one_kind])
        besides = besides_of[of_one_kind]
        yield np.setdiff1d(class_of[labels], besides), f"{node.target} ({SHARED})", node
    yield np.flatnonzero(at("out", True) & ~at("out", False)), MADE_BY_CONSTANT, None
    yield np.flatnonzero(at("in", True) & ~at("in", False)), READ_BY_CONSTANT, None


def _made_besides(
    labeller: Labeller, class_of: np.ndarray, shared: Sequence[tuple[np.ndarray, fx.Node, int]]
) -> np.ndarray:
    """Returns the classes whose labels also stand in values that these softmaxes neither depend on nor feed.

    These are channels: a softmax may weigh channels, as in a gate or in attention among channels.
    """
    made = np.concatenate(labeller.made_by(lambda path: True))
    through = np.zeros(len(class_of), bool)
    before: set[fx.Node] = set()
    behind: set[fx.Node] = set()
    for labels, node, ties in shared:
        then = labeller.classes(ties)  # by the ties before the softmax, not by those of what it weighs
        through |= np.isin(then, then[labels])
        before |= _reached(node, lambda one: one.all_input_nodes)
        behind |= _reached(node, lambda one: list(one.users))
    around = [
        axis[axis > 0]
        for node, value in labeller.values.items()
        if node.op == "call_function" and node not in before and node not in behind
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, Value) and not one.constant
        for axis in one.axes
        if axis is not None
    ]
    return np.unique(class_of[np.concatenate([made[~through[made]], *around])])


def _reached(start: fx.Node, neighbours: Callable[[fx.Node], list[fx.Node]]) -> set[fx.Node]:
    """Returns a node and all nodes that can be reached from it through neighbours."""
    found, left = {start}, [start]
    while left:
        new = [node for node in neighbours(left.pop()) if node not in found]
        found.update(new)
        left += new
    return found


def classes_of(axes: Sequence[np.ndarray], class_of: np.ndarray, count: int) -> np.ndarray:
    """Tells of each of `count` classes whether it has one of these labels."""
    found = np.zeros(count, bool)
    for labels in axes:
        found[class_of[labels]] = True
    return found
