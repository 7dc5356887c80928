"""Activations whose ranges are found at run time: which they are, the ops that round them, and what stays in float."""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from penjing.capabilities import Capabilities
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.straight_through import ops  # importing it registers the ops
from penjing.quantize._choices import Choice
from penjing.quantize._insert import origin
from penjing.quantize._placement import Placed, Site
from penjing.quantize.grids import integers

aten = torch.ops.aten
DYNAMIC = "dynamic"
GRID = integers("uint8")
GROUP_GRID = integers("int8")
SMALLEST = torch.finfo(torch.float32).tiny  # scale, for values that are all 0


def for_dynamic(target: Capabilities) -> Capabilities:
    """Returns the target, of whose placement only layers are left whose inputs' ranges it can find at run time.

    Raises:
        PenjingError: it can't for any.
    """
    placement, numbers = target.placement, target.numbers
    if not placement.dynamic:
        raise PenjingError(f"{target.name} finds no ranges at run time: give activations='auto' and calibration data.")
    return replace(
        target,
        placement=replace(
            placement,
            layers={op: fits for op, fits in placement.layers.items() if op in placement.dynamic},
            float_output=placement.dynamic,
            integer={},
            same={},
            clips={},
            gates=frozenset(),
        ),
        numbers=replace(numbers, weights={**numbers.weights, **numbers.dynamic_weights}),
    )


def check_dynamic_groups(target: Capabilities, choices: Sequence[Choice]) -> None:
    """Makes sure that the target has kernels for the groups.

    Raises:
        PenjingError: it has none for some size; lists those that it has.
    """
    for choice in choices:
        if choice.grain.kind == "group" and choice.grain.size not in target.numbers.dynamic_groups:
            sizes = ", ".join(f"'group:{size}'" for size in sorted(target.numbers.dynamic_groups))
            raise PenjingError(
                f"{target.name} has no integer arithmetic for {choice.words} with ranges found at run time. It has it "
                f"for {sizes}. simulate=True gives the values all the same, without the target's speed."
            )


def insert_dynamic(graph: Graph, placed: Placed, choice_of: Callable[[fx.Node], Choice | None]) -> None:
    """Inserts, before the layers, the ops that find a range and round to it.

    A layer with one scale per tensor or channel reads uint8 with one scale and zero point for the whole tensor. One whose
    weights are in groups reads int8 with one scale for each group of features, since its sums of integers end there.
    """
    for site in placed.sites:
        readers: dict[int, list[fx.Node]] = {}
        for reader in _readers(site):
            choice = choice_of(reader)
            size = choice.grain.size if choice is not None and choice.grain.kind == "group" else 0
            readers.setdefault(size, []).append(reader)
        for size, layers in readers.items():
            with graph.program.graph.inserting_before(_first(graph, layers)):
                restored = _Writer(graph, site.node).rounded(size)
            for layer in layers:
                layer.replace_input_with(site.node, restored)


def _readers(site: Site) -> Iterator[fx.Node]:
    return (user for user in site.node.users if site.users is None or user in site.users)


def _first(graph: Graph, layers: Sequence[fx.Node]) -> fx.Node:
    return next(node for node in graph.program.graph.nodes if node in layers)


class _Writer:
    """Writes nodes that are traced to the value which they round."""

    def __init__(self, graph: Graph, value: fx.Node) -> None:
        self._nodes, self._value = graph.program.graph, value

    def rounded(self, size: int) -> fx.Node:
        """Returns the value, rounded in groups of this size; 0 for one range."""
        return self._in_groups(size) if size else self._whole()

    def _whole(self) -> fx.Node:
        ends = (GRID.low, GRID.high)
        found = self._call(ops.choose_qparams.tensor, self._value, *ends, SMALLEST, GRID.dtype)
        range_of = (*self._both(found), *ends, GRID.dtype)
        quantized = self._call(ops.quantize_per_tensor.tensor, self._value, *range_of)
        return self._call(ops.dequantize_per_tensor.tensor, quantized, *range_of)

    def _in_groups(self, size: int) -> fx.Node:
        features = self._value.meta["val"].shape[-1]
        ends = (-GROUP_GRID.high, GROUP_GRID.high)
        groups = self._call(aten.unflatten.int, self._value, -1, [features // size, size])
        found = self._call(ops.choose_qparams_per_token.default, groups, GROUP_GRID.dtype)
        range_of = (*self._both(found), *ends, GROUP_GRID.dtype)
        quantized = self._call(ops.quantize_per_token.default, groups, *range_of)
        restored = self._call(ops.dequantize_per_token.default, quantized, *range_of, torch.float32)
        return self._call(aten.flatten.using_ints, restored, -2, -1)

    def _both(self, found: fx.Node) -> tuple[fx.Node, fx.Node]:
        return self._call(operator.getitem, found, 0), self._call(operator.getitem, found, 1)

    def _call(self, target: Any, *arguments: Any) -> fx.Node:
        node = self._nodes.call_function(target, arguments)
        node.meta = origin(self._value)
        return node


def words_of(choice: Choice) -> str:
    """How plans call the activations of a layer."""
    if choice.grain.kind == "group":
        return f"{GROUP_GRID.name} activations per {choice.grain.words} (range at run time)"
    return f"{GRID.name} activations (range at run time)"
