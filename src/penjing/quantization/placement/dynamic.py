"""Activations whose ranges are found at run time: the layers that read them, and the ops that round them."""

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import fx

from penjing.capabilities import Capabilities
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.edit.rewriter import Writer
from penjing.graph.straight_through import ops  # importing it registers the ops
from penjing.quantization.grids import integers
from penjing.quantization.placement.sites import Placed, Site
from penjing.quantization.weights.choices import Choice

aten = torch.ops.aten
DYNAMIC = "dynamic"
GRID = integers("uint8")  # of inputs with one range
GROUP_GRID = integers("int8")  # of inputs with a range per group of features
SMALLEST = torch.finfo(torch.float32).tiny  # smallest scale, for values that are all 0


def for_dynamic(target: Capabilities) -> Capabilities:
    """Returns the target with a placement that holds only the layers whose input ranges it can find at run time.

    Raises:
        PenjingError: the target can't find ranges at run time for any layer.
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
    """Makes sure that the target has kernels for the sizes of the groups.

    Raises:
        PenjingError: the target has none for some size; the message lists the sizes that it has kernels for.
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

    A layer whose weights have one scale per tensor or channel reads uint8 with one scale and zero point for the whole input.
    A layer whose weights are in groups reads int8 with one scale for each group of features, since its sums of integers end
    at the groups' ends.
    """
    for site in placed.sites:
        readers: dict[int, list[fx.Node]] = {}
        for reader in _readers(site):
            choice = choice_of(reader)
            size = choice.grain.size if choice is not None and choice.grain.kind == "group" else 0
            readers.setdefault(size, []).append(reader)
        for size, layers in readers.items():
            write = Writer.before(_first(graph, layers), on_behalf_of=site.node)
            restored = _in_groups(write, site.node, size) if size else _whole(write, site.node)
            for layer in layers:
                layer.replace_input_with(site.node, restored)


def _readers(site: Site) -> Iterator[fx.Node]:
    return (user for user in site.node.users if site.users is None or user in site.users)


def _first(graph: Graph, layers: Sequence[fx.Node]) -> fx.Node:
    return next(node for node in graph.program.graph.nodes if node in layers)


def _whole(write: Writer, value: fx.Node) -> fx.Node:
    """Rounds a value within one range."""
    ends = (GRID.low, GRID.high)
    found = write(ops.choose_qparams.tensor, value, *ends, SMALLEST, GRID.dtype)
    range_of = (*_both(write, found), *ends, GRID.dtype)
    quantized = write(ops.quantize_per_tensor.tensor, value, *range_of)
    return write(ops.dequantize_per_tensor.tensor, quantized, *range_of)


def _in_groups(write: Writer, value: fx.Node, size: int) -> fx.Node:
    """Rounds each `size` features of a value within a range of their own."""
    features = value.meta["val"].shape[-1]
    ends = (-GROUP_GRID.high, GROUP_GRID.high)
    groups = write(aten.unflatten.int, value, -1, [features // size, size])
    found = write(ops.choose_qparams_per_token.default, groups, GROUP_GRID.dtype)
    range_of = (*_both(write, found), *ends, GROUP_GRID.dtype)
    quantized = write(ops.quantize_per_token.default, groups, *range_of)
    restored = write(ops.dequantize_per_token.default, quantized, *range_of, torch.float32)
    return write(aten.flatten.using_ints, restored, -2, -1)


def _both(write: Writer, found: fx.Node) -> tuple[fx.Node, fx.Node]:
    return write(operator.getitem, found, 0), write(operator.getitem, found, 1)
