"""What is said of a target: plain tables that techniques and planners read, so that none of them knows a runtime by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from penjing.graph.clips import Interval

Condition = Callable[[fx.Node], bool]

Largest = Mapping[str, int]
"""The name of a grid in `penjing list grids`, and the largest number behind it that the target takes (0: it has none)."""


@dataclass(frozen=True)
class Placement:
    """What a target executes in integers, by ATen op, and how pairs of quantise and dequantise ops must stand for it.

    Each table maps an op to a condition on the node, or to what is known about it.

    Attributes:
        layers: ops with a constant weight as second argument, its output channels on axis 0, that multiply integers if
            their input is quantised.
        float_output: those of `layers` that stay integer where their output isn't rounded to integers again.
        weights_alone: ops like those in `layers` whose weights its files hold in few bits, and which multiply them in
            floating point where their input isn't quantised.
        integer: ops that stay integer if all of their inputs and their output are quantised.
        same: ops that move or select values and so pass integers on as they are; their inputs' grid holds.
        clips: ops that cut values off, and the bounds; none are left where the grid of their output holds nothing
            beyond the bounds.
        bounded: ops whose values never pass these bounds.
        gates: ops that are integer once they are written as the product of their input and a gate, which is one of
            `integer`.
        dynamic: those of `layers` whose inputs' ranges it can find at run time.
    """

    layers: Mapping[Any, Condition]
    float_output: frozenset[Any]
    weights_alone: Mapping[Any, Condition]
    integer: Mapping[Any, Condition]
    same: Mapping[Any, Condition]
    clips: Mapping[Any, Callable[[fx.Node], Interval | None]]
    bounded: Mapping[Any, Interval]
    gates: frozenset[Any]
    dynamic: frozenset[Any] = frozenset()


@dataclass(frozen=True)
class Numbers:
    """The grids that a target stores and computes with.

    Attributes:
        preferred: the grid of activations that "auto" stands for.
        activations: that it multiplies in integers; empty where it multiplies nothing in integers.
        weights: that it multiplies with such activations in integers, by kind of grain.
        weights_alone: that it stores in the grid's bits (or the next size that it has) and multiplies with activations in
            floating point, by kind of grain.
        stored: the sizes in bits that a weight has in its files; a grid takes the next.
        wider: the grids, from few bits to more, that a layer may go back to where its own are too few: those that the target
            computes with faster than in floating point, which is always the last.
        dynamic_weights: the grids that layers whose inputs' ranges it finds at run time have for kinds of grain which they
            lack otherwise.
        dynamic_groups: sizes of groups that such layers have.
    """

    preferred: str
    activations: Largest
    weights: Mapping[str, Largest]
    weights_alone: Mapping[str, Largest]
    stored: tuple[int, ...]
    wider: tuple[str, ...] = ("int8",)
    dynamic_weights: Mapping[str, Largest] = field(default_factory=dict)
    dynamic_groups: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Zeros:
    """What a runtime makes of zeros among weights that keep their shapes.

    Attributes:
        skipped: granularities of pruning whose zeros its kernels skip: they make it faster.
        left_out: granularities whose zeros its files leave out: they make the file smaller.
        why: why it is so, as a sentence of a report.
    """

    skipped: frozenset[str]
    left_out: frozenset[str]
    why: str


@dataclass(frozen=True)
class Capabilities:
    """What one target can do.

    Attributes:
        name: what users type.
        placement: what it executes in integers.
        numbers: the grids that it stores and computes with.
        channel_multiples: multiples of channels that fill its kernels' vector registers, the best first.
        zeros: what it makes of weights that pruning set to zero.
    """

    name: str
    placement: Placement
    numbers: Numbers
    channel_multiples: tuple[int, ...]
    zeros: Zeros

    @property
    def has_integers(self) -> bool:
        """Whether it multiplies anything in integers."""
        return bool(self.numbers.activations)
