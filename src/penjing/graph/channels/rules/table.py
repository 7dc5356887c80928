"""The tables of rules, and the terms in which rules are written: values, axes of labels, ties, pins, roles."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import fx

Axis = np.ndarray | None
"""The labels of an axis's indices, int64 `(size,)`; 0 marks a pinned index, None a pinned axis or one of dynamic size.

An axis of dynamic size may have labels that repeat along it, such as those of heads that a view merged with the batch.
Such an axis is *tiled*. Only rules registered with `rule(..., tiled=True)` receive tiled axes; for all others the axis
is pinned.
"""

Axes = tuple[Axis, ...]
"""One `Axis` per axis of a tensor."""


@dataclass(frozen=True)
class Value:
    """A tensor as a rule sees it.

    Attributes:
        axes: the labels.
        shape: the sizes; each dynamic size has its own large stand-in number, so that products of sizes can be told apart.
        name: the tensor's name, if it is a parameter or buffer.
        constant: whether the tensor is computed from parameters and buffers alone, such as a standardised weight.
    """

    axes: Axes
    shape: tuple[int, ...]
    name: str | None = None
    constant: bool = False


class Uncovered(Exception):
    """A rule doesn't cover this call of its op: all axes that the op reads or makes are pinned, with this reason."""


class Labelling(Protocol):
    """The methods that a rule may call while the graph is labelled."""

    node: fx.Node

    def fresh(self, count: int) -> np.ndarray:
        """Returns `count` new labels without ties; raises `Uncovered` for a dynamic size, whose number isn't known."""

    def axis(self, size: int) -> Axis:
        """Returns new labels for an axis, or None for an axis of dynamic size, whose indices all stay."""

    def tie(self, a: Axis, b: Axis) -> None:
        """Ties two axes: indices at equal positions are kept or removed together. A pinned axis pins the other."""

    def pin(self, axis: Axis) -> None:
        """Pins these labels: they must stay."""

    def unequal(self, longer: Axis, shorter: Axis) -> None:
        """States that the longer of two axes must stay longer than the other: if need be, it keeps one index more."""

    def shares(self, axis: Axis) -> None:
        """States that the indices share one whole, as a softmax's classes do: removing one changes all the others."""

    def role(self, value: Value, axis: int, role: str) -> None:
        """States the role of a parameter's axis: "out" makes channels, "in" reads them, "scale" and "shift" act on each.

        For a value computed from parameters, the role goes to the parameters' axes that own these labels.
        """

    def owned(self, axis: Axis) -> bool:
        """Tells whether any of these labels belongs to a parameter."""

    exploring: bool
    """Whether this walk explores which axes of a split can carry channels; see `tried`."""

    def tried(self, candidates: Mapping[int, np.ndarray]) -> None:
        """Records the labels, by axis, that a split gave to each axis that may carry channels; a merge passes none."""

    def choose(self, sizes: Mapping[int, int]) -> int:
        """Chooses which of several axes, given as sizes by position, carries the channels, according to `units`.

        Axes that a later op pins, such as an op that separates queries, keys and values, aren't chosen.
        """

    def output(self, index: int = 0) -> tuple[int, ...]:
        """Returns the shape of the node's (n-th) output, as in `Value.shape`."""


class Resizing(Protocol):
    """The methods that a resize rule may call while sizes are rewritten."""

    def kept(self, node: fx.Node, axis: int, output: int = 0) -> np.ndarray | None:
        """Returns a mask, `(old size,)`, of the indices that stay along an axis; None for a pinned axis, which stays whole."""

    def count(self, node: fx.Node, axis: int, output: int = 0) -> int | None:
        """Returns the new size of an axis, or None for a pinned one."""

    def period(self, node: fx.Node, axis: int) -> tuple[int, int] | None:
        """Returns the number of labels that repeat along a tiled axis, before and now; None if the axis isn't tiled."""

    def added(self, node: fx.Node, axis: int) -> tuple[int, int]:
        """Returns how many of the indices stay that a padding op added before an axis and behind it."""


Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
RESIZES: dict[Any, Callable[[Resizing, fx.Node], None]] = {}
TILED: set[Any] = set()
"""Ops whose rules handle tiled axes; see `Axis`."""

FREE = 10**6
"""Sizes of at least this number are stand-ins for dynamic sizes; see `Value.shape`."""


def fixed(size: int) -> bool:
    """Tells whether a size isn't dynamic, so that each index of the axis can have a label."""
    return 0 <= size < FREE


def rule(*targets: Any, tiled: bool = False) -> Callable[[Rule], Rule]:
    """Registers a rule for these ops; `tiled` says that the rule handles tiled axes.

    A rule is called with the labelling and the op's arguments in the order of its schema (defaults filled in, tensors as
    `Value`), and returns the `Axes` of the output, or a list of them for an op with several outputs.
    """

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        TILED.update(targets if tiled else ())
        return function

    return add


def resize(*targets: Any) -> Callable[[Any], Any]:
    """Registers a function that rewrites constant arguments of these ops' nodes after channels were removed."""

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
    """Pins axes whose positions have a meaning, such as those over which a window slides, and returns them pinned."""
    for axis in axes:
        labelling.pin(axis)
    return (None,) * len(axes)
