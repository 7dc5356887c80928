"""Quantisation as a planner sees it: each layer's weights on a grid, with the rounding of activations that fits the target."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from penjing.capabilities import Capabilities
from penjing.checks import FLAG, PATTERNS, SEED, TEXT, check, optional
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence.reader import has_none
from penjing.graph import Graph, Option, Place
from penjing.graph.patterns import matches
from penjing.graph.places import Json, unknown_place
from penjing.loaders import first
from penjing.quantization.calibration.constant import ConstantActivations
from penjing.quantization.calibration.sensitivity import noise_of
from penjing.quantization.placement.dynamic import DYNAMIC
from penjing.quantization.placement.of_target import FASTEST
from penjing.quantization.rounding import find_rounding
from penjing.quantization.settings import QuantizationSettings
from penjing.quantization.verb import NothingToQuantize, places_of_integers, quantize_with
from penjing.quantization.weights.choices import FLOAT, find_choice, grid_of
from penjing.quantization.weights.places import weights_by_place
from penjing.techniques import Scope, Stage, Technique, techniques

log = logging.getLogger("penjing.quantize")


@dataclass(frozen=True)
class _Setting:
    """The setting of an option that rounds a layer, or leaves it in floating point."""

    weights: str
    activations: str | None
    observer: str
    rounding: str
    corrections: str | tuple[str, ...]
    target: str
    placement: str
    exclude: str | tuple[str, ...]
    in_float: str | tuple[str, ...]
    simulate: bool
    seed: int
    grain: str = "auto"


# Settings that all options of a plan share, with the rule for each.
_RULES = {
    "activations": optional(TEXT),
    "observer": TEXT,
    "rounding": TEXT,
    "target": TEXT,
    "placement": TEXT,
    "exclude": PATTERNS,
    "in_float": PATTERNS,
    "simulate": FLAG,
    "seed": SEED,
}
_OWN = frozenset({"weights", "grain"})


@techniques.register(source="Jacob et al., Quantization and Training of Neural Networks, 2018", name="quantize")
class Quantization(Technique):
    """Rounds weights and activations to few bits, where the target computes with these."""

    stage: ClassVar[Stage] = "numbers"
    per_place = frozenset({"grain"})

    def __init__(
        self,
        weights: str | Sequence[str] = "int8",
        activations: str | None = "auto",
        observer: str = "minmax",
        grain: str = "auto",
        rounding: str = "nearest",
        corrections: str | Sequence[str] = "auto",
        per_layer: Mapping[str, str] | None = None,
        target: Capabilities | None = None,
        placement: str = FASTEST,
        in_float: Sequence[str] = (),
        simulate: bool = False,
        seed: int = 0,
        include: Sequence[str] = (),
    ) -> None:
        """Takes the arguments of `quantize`, which documents them; two have another meaning.

        Args:
            weights: a grid, or several grids, among which a planner chooses for each layer; "float32" leaves a layer as it
                is. A layer that `per_layer` names keeps the grid named there.
            target: the record of a target that isn't in the table of capabilities; other targets are found by name.

        Raises:
            PenjingError: a grid is unknown, or there is none beside "float32".
        """
        find_rounding(rounding)
        self._weights = (weights,) if isinstance(weights, str) else tuple(weights)
        grids = [name for name in self._weights if name != FLOAT]
        if not grids:
            raise PenjingError(
                f"weights={weights!r} names no grid to round to: give one of `penjing list grids`, such as 'int8'; 'float32' may "
                "stand beside it."
            )
        for name in grids:
            find_choice(name, grain)
        self._record = target
        self._settings = QuantizationSettings(
            self._weights[0], activations, observer, grain, rounding, corrections, per_layer or {},
            placement=placement, in_float=in_float, simulate=simulate, seed=seed,
            include=include,
        )  # fmt: skip

    def propose(self, graph: Graph, data: Any, capabilities: Capabilities, scope: Scope) -> Iterator[Option]:
        """Yields an option with each grid for every layer that the target computes in integers.

        If activations have constant ranges, there are options only if there is data to find the ranges on, and if the target
        computes in integers. Rounding weights alone needs neither.
        """
        possible = not has_none(data) and (capabilities.has_integers or self._settings.simulate)
        if self._settings.activations not in (None, DYNAMIC) and not possible:
            return
        # A rounding needs integer grids, and not all grids of a choice are; whether it fits is checked when it is applied.
        settings = replace(self._settings, exclude=scope.unrounded, target=capabilities, rounding="nearest")
        grids = [name for name in self._weights if name != FLOAT]
        for name in self._weights:
            try:
                found = places_of_integers(graph, data, replace(settings, weights=grids[0] if name == FLOAT else name))
            except NothingToQuantize as nothing:
                log.info("no integer candidate: %s", nothing)
                return
            for path, plain in found.items():
                setting = {**plain, "rounding": self._settings.rounding}
                own = matches(path, tuple(settings.per_layer))
                if own and name != self._weights[0]:  # its grid is the same whatever `name` is: one option is enough
                    continue
                if name == FLOAT and not own:
                    setting = {"weights": FLOAT} | {key: value for key, value in setting.items() if key not in _OWN}
                yield Option(Place("weight", path), "quantize", setting, FLOAT, setting["weights"])

    def damage(self, graph: Graph, options: Sequence[Option], data: Any, capabilities: Capabilities) -> list[float]:
        """Measures the noise that each layer adds to the outputs when it alone is rounded; see `sensitivity`."""
        names = list(dict.fromkeys(grid_of(option) for option in options))
        grids = [name for name in names if name != FLOAT]
        if not grids:
            return [0.0] * len(options)
        shared = _shared(options)
        settings = replace(self._settings, exclude=shared["exclude"], target=capabilities)
        fixed = tuple(settings.per_layer)
        noise = noise_of(graph, data, grids, settings)
        return [
            0.0
            if grid_of(option) == FLOAT
            else noise[option.place.path][grids[0] if matches(option.place.path, fixed) else grid_of(option)]
            for option in options
        ]

    def apply(self, graph: Graph, options: Sequence[Option], data: Any) -> Graph:
        """Returns a graph in which these weights, and no others, are on their grids; activations as the options say."""
        return quantize_with(graph, data, self._asked(graph, options))

    def draft(self, graph: Graph, options: Sequence[Option], data: Any) -> Graph | None:
        """Quantises quickly, for measuring time: on little data, without learned roundings and corrections."""
        try:
            asked = replace(self._asked(graph, options), rounding="nearest", corrections=())
            if has_none(data) and asked.activations not in (None, DYNAMIC):
                return None
            try:
                return quantize_with(graph, _few(data), asked)
            except ConstantActivations:  # the first batch may be too little data
                return quantize_with(graph, data, asked)
        except NothingToQuantize as nothing:
            log.info("no integer candidate: %s", nothing)
            return None
        except ConstantActivations as dead:
            _check_it_was_pruning(graph, dead)
            return None

    def leave(self, options: Sequence[Option], paths: Collection[str]) -> Sequence[Option]:
        """Leaves the layers at these paths in floating point; `in_float` names them as measured to be faster there."""
        found = []
        for option in options:
            setting = {**option.setting, "in_float": [*option.setting["in_float"], *paths]}
            if matches(option.place.path, tuple(paths)):
                own = {key: value for key, value in setting.items() if key not in _OWN}
                left = {"weights": FLOAT, **own}
                found.append(replace(option, setting=left, after=FLOAT, found={"reason": "slower"}))
            else:
                found.append(replace(option, setting=setting))
        return found

    def _asked(self, graph: Graph, options: Sequence[Option]) -> QuantizationSettings:
        """Returns the settings of `quantize` that carry out the options."""
        return _settings_of(graph, options, self._record)


def _few(data: Any) -> Any:
    """Returns calibration data that holds only the first batch."""
    if has_none(data) or hasattr(data, "__next__"):
        return data
    if isinstance(data, Data):
        assert data.calibration is not None
        return replace(data, calibration=[first(data.calibration, "data.calibration")])
    return [first(data, "The calibration data")]


def _check_it_was_pruning(graph: Graph, dead: ConstantActivations) -> None:
    """Warns that an earlier step of the graph's plan, such as pruning, left an activation that never changes.

    Raises:
        ConstantActivations: the plan has no earlier step, so that the user's own model has the constant activation.
    """
    if not graph.plan:
        raise dead
    log.warning("no integer candidate, since pruning left something dead: %s", dead)


def _settings_of(graph: Graph, options: Sequence[Option], record: Capabilities | None) -> QuantizationSettings:
    """Returns the settings of `quantize` that carry out the options; `record` is the target if it has the target's name.

    Raises:
        PenjingError: the options name a place that isn't in the graph, make no sense, or can't be carried out together.
    """
    shared = _shared(options)
    there = weights_by_place(graph)
    grids: dict[str, str] = {}
    for option in options:
        setting = option.setting_as(_Setting)
        option.check_after("weights", setting.weights)
        if option.place.kind != "weight":  # such an option only records why a value stayed in floating point
            continue
        if option.place.path not in there:
            raise unknown_place(option.place, [Place("weight", path) for path in there], graph.name)
        grids[option.place.path] = setting.weights if setting.weights == FLOAT else f"{setting.weights}/{setting.grain}"
    rounded = {path: grid for path, grid in grids.items() if grid != FLOAT}
    if not rounded:
        raise NothingToQuantize(f"The plan leaves all layers of {graph.name} in floating point.")
    usual = next(iter(rounded.values())).partition("/")[0]
    corrections = shared["corrections"]
    known = {name: shared[name] for name in _RULES}
    if record is not None and record.name == known["target"]:
        known["target"] = record
    settings = QuantizationSettings(weights=usual, corrections=(), **known)
    able = places_of_integers(graph, None, replace(settings, rounding="nearest"))
    # Layers that the target could run and the plan doesn't name stay in floating point; those that it can't run do anyway.
    special = {
        path: grids.get(path, FLOAT) for path in dict.fromkeys([*able, *grids]) if path in able or path in rounded
    }
    inner_first = dict(
        sorted(special.items(), key=lambda item: -item[0].count("."))
    )  # the first pattern that fits wins
    return replace(
        settings, corrections=corrections if isinstance(corrections, str) else tuple(corrections), per_layer=inner_first
    )


def _shared(options: Sequence[Option]) -> Mapping[str, Json]:
    """Returns the settings that the options share.

    Raises:
        PenjingError: a setting is missing or unknown, or differs between two options.
    """
    shared = {key: value for key, value in options[0].setting.items() if key not in _OWN}
    for option in options:
        option.setting_as(_Setting)
        for key, value in option.setting.items():
            if key not in _OWN and shared.get(key) != value:
                raise PenjingError(
                    f"The plan's settings disagree on '{key}': {shared.get(key)!r} at '{options[0].place.path}', {value!r} "
                    f"at '{option.place.path}'. A graph is quantised in one go. Nothing was applied."
                )
    check({name: shared[name] for name in _RULES}, _RULES)
    return shared
