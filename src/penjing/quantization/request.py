"""What the user asks of a quantisation, read and checked against the graph, the data and the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from penjing.capabilities import Capabilities, Placement
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


@dataclass(frozen=True)
class QuantizeRequest:
    """The arguments of `quantize`, read.

    Attributes:
        choices: of the layers' weights.
        activations: the grid of activations whose ranges are constants; None where there are none.
        dynamic: whether ranges are found at run time instead.
        observer: of the ranges.
        target: what the runtime can do.
        placement: what is used of its placement; see `used_of`.
        in_float: patterns of layers that were measured to be faster in floating point.
        strict: whether no layer may stay in floating point.
        rounding: of the weights.
        iterations: of a learned rounding, or its sweeps; None for its own.
        corrections: by name; none for "auto".
        before: those that are applied before anything is rounded.
        after: those that are applied at the end.
        keep: how many samples means and variances are put right on; 0 for none.
        seed: of random numbers.
        shared: what was asked for of all layers alike, as plain JSON: with a layer's grid and grain it is all that decides
            what becomes of the layer.
    """

    choices: Choices
    activations: Grid | None
    dynamic: bool
    observer: ChosenObserver
    target: Capabilities
    placement: Placement
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
        """Whether the rounding is learned from the data."""
        return self.rounding.learned

    @property
    def read_grid(self) -> Grid | None:
        """The grid of what layers read, whenever its range is found; None where that isn't rounded."""
        return GRID if self.dynamic else self.activations

    def is_excluded(self, layer: fx.Node) -> bool:
        """Tells whether a layer was asked to stay in floating point."""
        return self.choices.of(layer) is None

    def setting(self, choice: Choice | None) -> dict[str, Json]:
        """Returns what a plan says of a layer; of one in floating point without a choice."""
        own = {"weights": FLOAT} if choice is None else {"weights": choice.grid.name, "grain": choice.grain.name}
        return {**own, **self.shared}


def read_request(graph: Graph, data: Any, given: QuantizationSettings) -> QuantizeRequest:
    """Reads and checks what `quantize` is given, which documents it; nothing of the data is read.

    Raises:
        PenjingError: unknown names, a pattern that matches nothing, data that can be read only once where it is read again,
            what the target can't run, a graph that is quantised already or isn't in float32.
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
        check_numbers(used, GRID if dynamic else observed, choices.all)
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
