"""The tables of rules, and the words in which a rule is written: values, axes of labels, ties, pins, roles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import fx

Axis = np.ndarray | None
"""The labels of an axis' indices, int64 of the axis' length; 0 is a pinned index, None a pinned (or free-sized) axis.

A free-sized axis may have labels too, that repeat along it: those of the heads where a view merged them behind the batch.
Such an axis is *tiled*. Only rules that say so (`rule(..., tiled=True)`) ever see one; to others it is a pinned axis.
"""

Axes = tuple[Axis, ...]
"""One `Axis` per axis of a tensor."""


@dataclass(frozen=True)
class Value:
    """A tensor as a rule sees it.

    Attributes:
        axes: the labels.
        shape: the sizes; a free axis stands for a large number of its own, so that products can be told apart.
        name: the tensor's name, if it is a parameter or buffer.
        constant: whether it is computed of parameters and buffers alone, as a standardised weight is.
    """

    axes: Axes
    shape: tuple[int, ...]
    name: str | None = None
    constant: bool = False


class Unlabelled(Exception):
    """Raised by a rule whose op was called in a way that it doesn't cover: what the op touches is pinned, with this reason."""


class Labelling(Protocol):
    """What a rule may ask for while labels are handed out."""

    node: fx.Node

    def fresh(self, count: int) -> np.ndarray:
        """Returns `count` new labels, tied to nothing. A free size, of which nobody knows the number, is refused."""

    def axis(self, size: int) -> Axis:
        """Returns new labels for all of an axis, or None for one of free size, whose indices all stay."""

    def tie(self, a: Axis, b: Axis) -> None:
        """Says that equal positions of two axes live and die together. A pinned axis pins the other."""

    def pin(self, axis: Axis) -> None:
        """Says that these labels must stay."""

    def unequal(self, longer: Axis, shorter: Axis) -> None:
        """Says that the longer of two axes must never become as short as the other: one index more of it stays then."""

    def shares(self, axis: Axis) -> None:
        """Says that the indices share one whole, as a softmax's classes do: one that goes changes all the others."""

    def role(self, value: Value, axis: int, role: str) -> None:
        """Says what an axis of a parameter does: "out" makes channels, "in" reads them, "scale" and "shift" act on each.

        Of a value computed of parameters it is said of those whose labels the axis carries.
        """

    def owned(self, axis: Axis) -> bool:
        """Tells whether a parameter has some of these labels."""

    exploring: bool
    """Whether this walk is the one that finds out which axes of a cut can carry, see `tried`."""

    def tried(self, candidates: Mapping[int, np.ndarray]) -> None:
        """Notes the labels that a cut gave to each of the axes (position: labels) that might carry; of a merge, none."""

    def choose(self, sizes: Mapping[int, int]) -> int:
        """Chooses which of several axes (position: size) carries the channels, as the user's `units` say.

        Axes that something behind them pins, as taking queries, keys and values apart does, are left to stay.
        """

    def output(self, index: int = 0) -> tuple[int, ...]:
        """Returns the shape of the node's (n-th) output, as in `Value.shape`."""


class Resizing(Protocol):
    """What a resize rule may ask for while sizes are rewritten."""

    def kept(self, node: fx.Node, axis: int, output: int = 0) -> np.ndarray | None:
        """Returns which indices of an axis stay, as booleans over its old length, or None if all of a pinned axis do."""

    def count(self, node: fx.Node, axis: int, output: int = 0) -> int | None:
        """Returns the new size of an axis, or None for a pinned one."""

    def period(self, node: fx.Node, axis: int) -> tuple[int, int] | None:
        """Returns how many labels repeat along a tiled axis, before and now, or None if the axis isn't tiled."""

    def added(self, node: fx.Node, axis: int) -> tuple[int, int]:
        """Returns how many of the indices that a padding op added before and behind an axis stay."""


Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
RESIZES: dict[Any, Callable[[Resizing, fx.Node], None]] = {}
TILED: set[Any] = set()
"""Ops whose rules know tiled axes, see `Axis`."""

FREE = 10**6
"""Sizes from here on stand for free axes, see `Value.shape`."""


def fixed(size: int) -> bool:
    """Tells whether the size of an axis is a number, so that each of its indices can have a label."""
    return 0 <= size < FREE


def rule(*targets: Any, tiled: bool = False) -> Callable[[Rule], Rule]:
    """Registers a rule for these ops; `tiled` says that it treats tiled axes right.

    A rule is called with the labelling and the op's arguments in the order of its schema (defaults filled in, tensors as
    `Value`), and returns the `Axes` of the output, or a list of them for an op with several outputs.
    """

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        TILED.update(targets if tiled else ())
        return function

    return add


def resize(*targets: Any) -> Callable[[Any], Any]:
    """Registers a function that rewrites the constants of these ops' nodes after channels went."""

    def add(function: Any) -> Any:
        RESIZES.update(dict.fromkeys(targets, function))
        return function

    return add


def set_argument(node: fx.Node, name: str, value: Any) -> None:
    """Sets an argument of an ATen call by its name in the schema."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    position = names.index(name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def pinned(labelling: Labelling, axes: Axes) -> Axes:
    """Pins axes whose places mean something, such as those that a window slides over, and returns them as such."""
    for axis in axes:
        labelling.pin(axis)
    return (None,) * len(axes)
