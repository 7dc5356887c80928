"""The record of what a target can do: techniques and planners read its plain tables, and none knows a runtime by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from penjing.graph.clips import Interval

Condition = Callable[[fx.Node], bool]
"""Tells whether an entry of a table holds for this node."""

Largest = Mapping[str, int]
"""From a grid's name in `penjing list grids` to the largest number that the target takes in the place of its N, such as 8 bits
for "intN"; 0 for names without a number."""


@dataclass(frozen=True)
class Placement:
    """Which ATen ops a target executes in integers, and how pairs of quantise and dequantise ops must stand for that.

    Each table maps an op to a condition on the node, or to what is known about the op.

    Attributes:
        layers: ops that multiply integers if their input is quantised. Their second argument is a constant weight, which
            has its output channels on axis 0.
        float_output: ops of `layers` that multiply integers even where their output isn't quantised.
        weights_alone: ops like those in `layers` whose weights the target's files hold in few bits, and which multiply in
            floating point where their input isn't quantised.
        integer: ops that compute in integers if all of their inputs and their output are quantised.
        same: ops that move or select values, and so pass integers on unchanged; their output has the grid of their inputs.
        clips: ops that cut values off, each with a function to its bounds. Where the grid of the output ends at the bounds
            or within, the op isn't needed any more.
        bounded: ops whose values never pass these bounds.
        gates: ops that compute in integers once each is written as the product of its input and a gate, where the gate is
            an op of `integer`.
        dynamic: ops of `layers` for whose inputs the target can find the ranges at run time.
        tables: ops that look rows up in a constant table, their first argument, with a row per index. The target's files
            hold such a table in few bits, and only the rows that are asked for become real numbers.
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
    tables: Mapping[Any, Condition] = field(default_factory=dict)


@dataclass(frozen=True)
class Numbers:
    """The grids that a target stores and computes with.

    Attributes:
        preferred: the grid that "auto" means for activations.
        activations: grids of activations that the target multiplies in integers; empty where it multiplies nothing so.
        weights: grids of weights that the target multiplies with such activations in integers, by kind of grain.
        weights_alone: grids of weights that the target stores in the grid's bits (or the next size that it has) and
            multiplies with activations in floating point, by kind of grain.
        stored: the sizes, in bits, that a weight can have in the target's files; a grid takes the next size.
        wider: the grids, from few bits to more, to which a layer may go back where its own bits are too few. The target
            computes faster with these than in floating point, to which a layer can always go back.
        dynamic_weights: further grids of weights, by kind of grain, that the target multiplies in integers only in layers
            for whose inputs it finds the ranges at run time.
        dynamic_groups: sizes of groups, in weights, that such layers can have.
        tables: grids of tables in which rows are looked up, by kind of grain; "channel" is a scale for each row.
    """

    preferred: str
    activations: Largest
    weights: Mapping[str, Largest]
    weights_alone: Mapping[str, Largest]
    stored: tuple[int, ...]
    wider: tuple[str, ...] = ("int8",)
    dynamic_weights: Mapping[str, Largest] = field(default_factory=dict)
    dynamic_groups: frozenset[int] = frozenset()
    tables: Mapping[str, Largest] = field(default_factory=dict)


@dataclass(frozen=True)
class Zeros:
    """What a target gains from zeros in weights that keep their shapes.

    Attributes:
        skipped: granularities of pruning whose zeros the target's kernels skip, which makes the model faster.
        left_out: granularities whose zeros the target's files leave out, which makes the file smaller.
        why: the reason, as a sentence of a report.
    """

    skipped: frozenset[str]
    left_out: frozenset[str]
    why: str


@dataclass(frozen=True)
class Capabilities:
    """What one target can do.

    Attributes:
        name: the target's name, as users type it.
        placement: which ops the target executes in integers.
        numbers: the grids that the target stores and computes with.
        channel_multiples: multiples of channels that fill the vector registers of the target's kernels, the best first.
        zeros: what the target gains from weights that pruning set to zero.
    """

    name: str
    placement: Placement
    numbers: Numbers
    channel_multiples: tuple[int, ...]
    zeros: Zeros

    @property
    def has_integers(self) -> bool:
        """Whether the target multiplies anything in integers."""
        return bool(self.numbers.activations)
