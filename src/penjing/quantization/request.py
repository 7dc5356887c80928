"""Reads the settings of a quantisation, and checks them against the graph, the data and the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from penjing.capabilities import Capabilities, Numbers, Placement
from penjing.errors import PenjingError
from penjing.evidence.reader import check_repeatable, has_none
from penjing.graph import Graph
from penjing.graph.places import Json
from penjing.quantization.corrections import AUTO, SAMPLES, Correction, of_stage
from penjing.quantization.grids import Grid, integers
from penjing.quantization.observers import ChosenObserver, find_observer
from penjing.quantization.placement.dynamic import DYNAMIC, GRID, check_dynamic_groups
from penjing.quantization.placement.insert import PAIRS
from penjing.quantization.placement.numbers import check_integers, check_numbers
from penjing.quantization.placement.of_target import FASTEST, INTEGER, checked_target, used_of
from penjing.quantization.rounding import RoundingEntry, find_rounding
from penjing.quantization.settings import QuantizationSettings
from penjing.quantization.weights.choices import FLOAT, Choice, Choices, read_choices
from penjing.quantization.weights.dtype import check_float32

NEAREST = "nearest"
# Grids of tables of which a graph simulates the values, whatever the target holds.
_TABLES = {"intN": 16, "uintN": 16, "power_of_two": 16}
_SIMULATED = dict.fromkeys(("tensor", "channel", "group"), _TABLES)


@dataclass(frozen=True)
class QuantizeRequest:
    """The arguments of `quantize`, with names looked up and checked.

    Attributes:
        choices: the grid and grain of each layer's weights.
        activations: the grid of activations whose ranges are constants; None where there are none.
        dynamic: whether the activations' ranges are found at run time instead.
        observer: finds the constant ranges.
        target: what the runtime can do.
        placement: the part of the target's placement that is used; see `used_of`.
        numbers: the grids that the target stores and computes with; any grid, where the graph only simulates.
        in_float: patterns of layers that were measured to be faster in floating point.
        strict: whether no layer may stay in floating point.
        rounding: the rounding of the weights.
        iterations: number of iterations, or sweeps, of a learned rounding; None for the rounding's default.
        corrections: the corrections' names; empty for "auto".
        before: the corrections that are applied before anything is rounded.
        after: the corrections that are applied at the end.
        keep: number of samples from which "auto" corrects means and variances; 0 for no such correction.
        seed: seed of random numbers.
        shared: the settings that all layers share, as plain JSON; together with a layer's grid and grain they decide
            completely how the layer is quantised.
    """

    choices: Choices
    activations: Grid | None
    dynamic: bool
    observer: ChosenObserver
    target: Capabilities
    placement: Placement
    numbers: Numbers
    in_float: tuple[str, ...]
    strict: bool
    rounding: RoundingEntry
    iterations: int | None
    corrections: tuple[str, ...]
    before: Sequence[Correction]
    after: Sequence[Correction]
    keep: int
    seed: int
    shared: Mapping[str, Json]

    @property
    def learned(self) -> bool:
        """Tells whether the rounding is learned from the data."""
        return self.rounding.learned

    @property
    def read_grid(self) -> Grid | None:
        """The grid of the layers' inputs, with constant or dynamic ranges; None where inputs aren't rounded."""
        return GRID if self.dynamic else self.activations

    def is_excluded(self, layer: fx.Node) -> bool:
        """Tells whether a layer was asked to stay in floating point."""
        return self.choices.of(layer) is None

    def setting(self, choice: Choice | None) -> dict[str, Json]:
        """Returns the setting that a plan holds for a layer with this choice; None stands for floating point."""
        own = {"weights": FLOAT} if choice is None else {"weights": choice.grid.name, "grain": choice.grain.name}
        return {**own, **self.shared}


def read_request(graph: Graph, data: Any, given: QuantizationSettings) -> QuantizeRequest:
    """Reads and checks the settings, which `quantize` documents; no data is read.

    Raises:
        PenjingError: a name is unknown; a pattern matches nothing; the data can be read only once and would be read again; the
            target can't run a grid; or the graph is quantised already, or isn't in float32.
    """
    check_float32(graph)
    choices = read_choices(graph, given)
    able, dynamic = checked_target(given), given.activations == DYNAMIC
    if dynamic and not given.simulate:
        check_integers(able)
    used = used_of(able, given.activations, given.simulate)
    chosen = used.numbers.preferred if given.activations == "auto" else given.activations
    observed = None if dynamic or chosen is None else integers(chosen)
    ranges, (how, iterations) = find_observer(given.observer), find_rounding(given.rounding)
    corrections = given.corrections
    names = () if corrections == AUTO else (corrections,) if isinstance(corrections, str) else tuple(corrections)
    before, after = of_stage(names, "float"), of_stage(names, "quantized")
    if before or after or how.learned:
        check_repeatable(data)
    if not given.simulate:
        check_numbers(used, GRID if dynamic else observed, choices.all, choices.of_tables)
        if dynamic:
            check_dynamic_groups(used, choices.all)
    if how.name != NEAREST and not any(choice.grid.is_integer for choice in choices.all):
        raise PenjingError(
            f"rounding='{given.rounding}' is for integer grids; '{given.weights}' has a rounding of its own."
        )
    done = any(step.technique == "quantize" and step.before != step.after for step in graph.plan)
    if done or any(node.target in PAIRS for node in graph.program.graph.nodes):
        raise PenjingError("The graph is quantised already; quantise the float graph that it was made of.")
    keep = SAMPLES if corrections == AUTO and (observed is not None or not has_none(data)) else 0
    return QuantizeRequest(
        choices=choices,
        activations=observed,
        dynamic=dynamic,
        observer=ranges,
        target=able,
        placement=used.placement,
        numbers=replace(used.numbers, tables=_SIMULATED) if given.simulate else used.numbers,
        in_float=tuple(given.in_float),
        strict=given.placement == INTEGER,
        rounding=how,
        iterations=iterations,
        corrections=names,
        before=before,
        after=after,
        keep=keep,
        seed=given.seed,
        shared={
            "activations": DYNAMIC if dynamic else None if observed is None else observed.name,
            "observer": given.observer,
            "rounding": given.rounding,
            "corrections": AUTO if corrections == AUTO else list(names),
            "target": able.name,
            "placement": INTEGER if given.placement == INTEGER else FASTEST,
            "exclude": list(given.exclude),
            "in_float": list(given.in_float),
            "simulate": given.simulate,
            "seed": given.seed,
        },
    )
