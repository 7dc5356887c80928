"""What has the shape of channels and is none: a layer makes it and an op reads all of it, but each index stands for something.

The classes of a softmax share one whole; the bands of a filterbank and the bins of an expectation stand in a constant. A
network that is smaller by one of them answers another question.
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
    """Gives classes of labels that are no channels, why, and the op that says so, if it is one.

    Args:
        graph: the graph.
        labeller: what labelled it.
        class_of: the class of each label.
        free: whether a class may go so far.
    """

    def at(role: str, constant: bool) -> np.ndarray:
        axes = [
            labeller.tensors[name][axis]
            for (name, axis), one in labeller.roles.items()
            if one == role and isinstance(graph.tensor(name), torch.nn.Parameter) is not constant
        ]
        return classes_of([labels for labels in axes if labels is not None], class_of, len(free))

    shared = [(labels, node, ties) for labels, node, ties in labeller.shared if free[class_of[labels]].any()]
    besides_of: dict[tuple[int, ...], np.ndarray] = {}  # softmaxes over the same classes are looked at once
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
    """Returns classes of labels of which channels are made that don't run through these softmaxes: those are channels.

    So it is where a softmax weighs channels, as in a gate or in attention among channels: others than its own inputs carry
    the same labels.
    """
    made = np.concatenate(labeller.made_by(lambda path: True))
    through = np.zeros(len(class_of), bool)
    before: set[fx.Node] = set()
    behind: set[fx.Node] = set()
    for labels, node, ties in shared:
        then = labeller.classes(ties)  # of what the softmax's inputs are made of, not of what its outputs weigh
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
    """Returns a node and all that is reached from it step by step."""
    found, left = {start}, [start]
    while left:
        new = [node for node in neighbours(left.pop()) if node not in found]
        found.update(new)
        left += new
    return found


def classes_of(axes: Sequence[np.ndarray], class_of: np.ndarray, count: int) -> np.ndarray:
    """Returns which of `count` classes have one of these labels."""
    found = np.zeros(count, bool)
    for labels in axes:
        found[class_of[labels]] = True
    return found
