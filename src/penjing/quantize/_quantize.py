"""The verb: from a float graph and calibration data to a graph that simulates integers exactly where they will be."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from penjing.errors import PenjingError
from penjing.graph import Graph, fold_batch_norms
from penjing.graph.patterns import matches
from penjing.quantize._activations import lay_activations, scale_of
from penjing.quantize._calibrate import check_repeatable, first_samples, has_none
from penjing.quantize._choices import FLOAT, Choice, check_groups, place_of, read_choices
from penjing.quantize._dynamic import (
    DYNAMIC,
    GRID,
    check_dynamic_groups,
    for_dynamic,
    insert_dynamic,
    left_out,
    words_of,
)
from penjing.quantize._insert import PAIRS, insert_activations, insert_weights
from penjing.quantize._learn import learn_rounding
from penjing.quantize._numbers import check_numbers
from penjing.quantize._placement import Placement
from penjing.quantize._placements import INTEGER, check_all_integer, find_placement
from penjing.quantize._recurrent import lay_recurrent, records_of
from penjing.quantize._rewritten import place_rewritten
from penjing.quantize._weights import lay_weights, round_weights
from penjing.quantize.corrections import AUTO, SAMPLES, of_stage, shrunk_statistics
from penjing.quantize.grids import integers
from penjing.quantize.observers import find_observer
from penjing.quantize.rounding import find_rounding


class NothingToQuantize(PenjingError):
    """The graph holds no layer that the target could run in few bits."""


def quantize(
    graph: Graph,
    data: Any = None,
    *,
    weights: str = "int8",
    activations: str | None = "auto",
    observer: str = "minmax",
    grain: str = "auto",
    rounding: str = "nearest",
    corrections: str | Sequence[str] = "auto",
    per_layer: Mapping[str, str] | None = None,
    exclude: Sequence[str] = (),
    placement: Placement | str = "fastest",
    in_float: Sequence[str] = (),
    simulate: bool = False,
    seed: int = 0,
) -> Graph:
    """Returns a graph that rounds weights and activations to few bits, after training and without any more of it.

    Batch norms are folded. Weights are symmetric integers with one scale per output channel unless asked otherwise;
    activations are affine with one scale per tensor, chosen from the values on calibration data. Pairs of quantise and
    dequantise ops stand where the target turns them and what is between them into integer kernels. Weights on integer
    grids stay float parameters with a pair behind them, so the graph can be trained; lowering stores them as integers.
    Codebooks, ternary and binary weights are stored as codes, and their tables and scales can be trained.

    Args:
        graph: a float graph; it stays as it was.
        data: a `Data` with a calibration part, or an iterable of batches; see `calibrate`. Not needed for weights alone.
        weights: the weights' grid, a name from `grids` with its number: "int8", "int4", "uint8", "power_of_two:8",
            "codebook:16", "ternary", "binary". Integers and powers of two have 2 to 16 bits.
        activations: the activations' grid, "uint8" or another of 2 to 16 bits, signed or not; "auto" takes what the target
            prefers; "dynamic" finds the range of what each linear layer reads at run time and needs no data; None rounds
            weights only, which makes the model smaller, and faster where memory is what it waits for.
        observer: how the activations' ranges are found: a name from `observers`, with its parameter behind a colon where
            it has one ("percentile:99.9").
        grain: which weights share a scale: "tensor", "channel" (of the output), "group:SIZE" (along a channel's weights);
            "auto" is the grid's own, "channel" for integers.
        rounding: how weights are rounded to an integer grid, a name from `roundings`; "adaround:1000" learns it from the
            data, with that many iterations for each layer; "brecq" learns whole blocks.
        corrections: what is put right before and after rounding. "auto" gives each channel of each layer the mean and, where
            its weights have a scale for each output channel, the variance that it has in floating point, as far as the
            first 32 calibration samples tell them: the fewer they are, the less is changed, and nothing with fewer than 16.
            Otherwise names from `penjing.quantize.corrections`, one or several, each of which reads all calibration data
            again; () for none.
        per_layer: grids of single layers by pattern of their module path, "float32" for none; the first that fits wins.
            "int8/channel" has a grain of its own.
        exclude: patterns of module paths ("layer1.*", "head"); what they name, or lies below it, computes in floating point.
        placement: "integer" leaves no layer in floating point but those excluded, and says so where ONNX Runtime has no
            integer kernel for one; "fastest" takes those, and `in_float`; or what another target fuses.
        in_float: patterns as in `exclude`, of layers that were measured to be faster in floating point; the plan names
            them. `penjing.compress` measures.
        simulate: allow grids and grains that the target doesn't run in integers; their values are still those of the grid.
        seed: of roundings that draw random numbers.

    Raises:
        PenjingError: unknown names, a pattern that matches nothing, no calibration data, activations that aren't finite,
            a graph that is quantised already or has nothing to quantise.

    Example:
        >>> import torch
        >>> from penjing.graph import capture
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> graph = capture(net, torch.randn(2, 4))
        >>> small = quantize(graph, [torch.randn(16, 4) for _ in range(4)])
        >>> small.plan[0]["setting"]
        'int8 weights per channel, uint8 activations (minmax), mean and variance corrected'
    """
    choices = read_choices(graph, weights, grain, per_layer, (*exclude, *in_float))
    strict, target, dynamic = placement == INTEGER, find_placement(placement, in_float), activations == DYNAMIC
    placement = for_dynamic(target) if dynamic else target
    chosen = placement.activations if activations == "auto" else GRID.name if dynamic else activations
    activation_grid = None if chosen is None else integers(chosen)
    find_observer(observer)  # a misspelt name is told before the data is read
    how, number = find_rounding(rounding)
    learned = bool(how.traits.get("learned"))
    names = () if corrections == AUTO else (corrections,) if isinstance(corrections, str) else tuple(corrections)
    before, after = of_stage(names, "float"), of_stage(names, "quantized")
    if before or after or learned:
        check_repeatable(data)
    if not simulate:
        check_numbers(placement.name, placement.numbers, activation_grid, choices.all)
        if dynamic:
            check_dynamic_groups(placement, choices.all)
    if rounding != "nearest" and not any(choice.grid.is_integer for choice in choices.all):
        raise PenjingError(f"rounding='{rounding}' is for integer grids; '{weights}' has a rounding of its own.")
    done = any(step.get("technique") == "quantize" for step in graph.plan)
    if done or any(node.target in PAIRS for node in graph.program.graph.nodes):
        raise PenjingError("The graph is quantised already; quantise the float graph that it was made of.")
    small = fold_batch_norms(graph)
    for correct in before:
        correct(small, data)
    placed = place_rewritten(small, placement, lambda node: choices.of(node) is None)
    if strict:
        check_all_integer(small, placed, placement, lambda node: choices.of(node) is None)
    recurrent = lay_recurrent(small, choices.of)
    if not placed.layers and not recurrent:
        left = " that isn't excluded" if exclude or in_float else ""
        kinds = "linear layer" if dynamic else "convolution or linear layer"
        other = " Other layers need calibration data and activations='auto'." if dynamic else ""
        raise NothingToQuantize(f"{graph.name} has no {kinds}{left} that {placement.name} could run in 8 bits.{other}")
    observed = activation_grid is not None and not dynamic
    keep = SAMPLES if corrections == AUTO and (observed or not has_none(data)) else 0
    reference = copy.deepcopy(small) if keep or after or learned else small
    check_groups(small, placed.layers, choices.of)
    settings = {place_of(layer): choice for layer in placed.layers if (choice := choices.of(layer)) is not None}
    inputs: dict[fx.Node, float | None] = {}
    first = first_samples(reference, data, keep) if keep and not observed else []
    if dynamic:
        insert_dynamic(small, placed, choices.of)
    elif activation_grid is not None:
        laid, first = lay_activations(small, data, placed, activation_grid, observer, keep)
        restored = insert_activations(small, laid)
        inputs = {layer: scale_of(layer.args[0], restored) for layer in placed.layers}
    found = lay_weights(small, placed.layers, choices.of, inputs)
    stored = [*found, *recurrent]
    generator = torch.Generator().manual_seed(seed)
    if not learned and rounding != "nearest":  # which the pairs do by themselves
        round_weights(small, stored, how.function, generator)
    insert_weights(small, stored)
    small.refresh(shapes_known=not dynamic)
    if learned:
        learn_rounding(small, reference, data, found, how, number, generator)
    for correct in after:
        correct(small, reference, data)
    rounded = "" if rounding == "nearest" else f", {rounding} rounding"
    moments = shrunk_statistics(small, reference, first) if keep else {}
    corrected = {path: "".join(f", {name}" for name in names) for path in settings}
    corrected |= {path: f", {what} corrected" for path, what in moments.items()}

    def read(choice: Choice) -> str:
        if activation_grid is None:
            return ""
        return f", {words_of(choice)}" if dynamic else f", {activation_grid.name} activations ({observer})"

    small.plan += [
        {
            "place": path,
            "technique": "quantize",
            "setting": choice.words + rounded + read(choice) + corrected[path],
            "before": FLOAT,
            "after": choice.grid.name,
        }
        for path, choice in settings.items()
    ] + _left_in_float(small, in_float)
    small.plan += records_of(recurrent)
    if dynamic:
        small.plan += left_out(small, target, lambda node: choices.of(node) is None)
    return small


def _left_in_float(graph: Graph, in_float: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the plan's records of layers that are faster in floating point."""
    paths = dict.fromkeys(row.module or row.node for row in graph.cost().rows if row.macs)
    record = {"technique": "quantize", "setting": "measured faster in floating point", "before": FLOAT, "after": FLOAT}
    return [{"place": path, **record} for path in paths if matches(path, in_float)]
