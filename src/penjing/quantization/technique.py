"""Quantisation as a planner sees it: the weights of each layer on a grid, and the activations that the target wants with it."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from penjing.capabilities import Capabilities
from penjing.checks import FLAG, PATTERNS, SEED, TEXT, check, optional
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, Option, Place
from penjing.graph.patterns import matches
from penjing.graph.places import Json, unknown_place
from penjing.loaders import first
from penjing.quantization.calibration.constant import ConstantActivations
from penjing.quantization.verb import NothingToQuantize, places_of_integers, quantize
from penjing.quantization.weights.choices import FLOAT, find_choice
from penjing.quantization.weights.places import weights_by_place
from penjing.techniques import Scope, Stage, Technique, techniques

log = logging.getLogger("penjing.quantize")

# What all options of a plan share, and what each may be by itself.
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
    """Weights and activations are rounded to few bits, where the target computes with these."""

    stage: ClassVar[Stage] = "numbers"
    per_place = frozenset({"grain"})

    def __init__(self, weights: str = "int8", seed: int = 0) -> None:
        """Takes the grid of the weights, and the seed of roundings that draw random numbers.

        Raises:
            PenjingError: the grid is unknown.
        """
        find_choice(weights, "auto")
        self._weights, self._seed = weights, seed

    def propose(self, graph: Graph, data: Data | None, capabilities: Capabilities, scope: Scope) -> Iterator[Option]:
        """Yields the grid for every layer that the target computes in integers, if there is data to find ranges on."""
        if data is None or data.calibration is None or not capabilities.has_integers:
            return
        how: dict[str, Any] = {"exclude": scope.exclude, "target": capabilities.name, "seed": self._seed}
        try:
            paths, shared = places_of_integers(graph, data, weights=self._weights, **how)
        except NothingToQuantize as nothing:
            log.info("no integer candidate: %s", nothing)
            return
        choice = find_choice(self._weights, "auto")
        setting = {"weights": choice.grid.name, "grain": choice.grain.name, **shared}
        for path in paths:
            yield Option(Place("weight", path), "quantize", setting, FLOAT, choice.grid.name)

    def apply(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Returns a graph in which these weights, and no others, are on their grids, with activations as the options say."""
        return quantize(graph, data, **_asked(graph, options))

    def draft(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph | None:
        """Calibrates on little data and corrects nothing: that doesn't change the time."""
        if data is None or data.calibration is None:
            return None
        few = replace(data, calibration=[first(data.calibration, "data.calibration")])
        try:
            asked = _asked(graph, options) | {"corrections": ()}
            try:
                return quantize(graph, few, **asked)
            except ConstantActivations:  # on so little data
                return quantize(graph, data, **asked)
        except NothingToQuantize as nothing:
            log.info("no integer candidate: %s", nothing)
            return None
        except ConstantActivations as dead:
            _check_it_was_pruning(graph, dead)
            return None

    def leave(self, options: Sequence[Option], paths: Collection[str]) -> Sequence[Option]:
        """Leaves the layers at these paths in floating point; `in_float` then names them, as measured to be faster so."""
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


def _check_it_was_pruning(graph: Graph, dead: ConstantActivations) -> None:
    """Warns where something that was done to the graph before left an activation that never changes.

    Raises:
        ConstantActivations: nothing was done to it, so that the activation is the user's own.
    """
    if not graph.plan:
        raise dead
    log.warning("no integer candidate, since pruning left something dead: %s", dead)


def _asked(graph: Graph, options: Sequence[Option]) -> dict[str, Any]:
    """Returns the arguments of `quantize` that do what the options say.

    Raises:
        PenjingError: they name a place that isn't there, make no sense, or can't be carried out together.
    """
    shared = _shared(options)
    there = weights_by_place(graph)
    grids: dict[str, str] = {}
    for option in options:
        if option.place.kind != "weight":  # what was left in floating point, and is told for its reason alone
            continue
        if option.place.path not in there:
            raise unknown_place(option.place, [Place("weight", path) for path in there], graph.name)
        name, grain = option.setting.get("weights"), option.setting.get("grain", "auto")
        if not isinstance(name, str) or not isinstance(grain, str):
            raise PenjingError(
                f"The plan's setting at '{option.place.path}' names no grid: {name!r}. Nothing was applied."
            )
        grids[option.place.path] = name if name == FLOAT else f"{name}/{grain}"
    rounded = {path: grid for path, grid in grids.items() if grid != FLOAT}
    if not rounded:
        raise NothingToQuantize(f"The plan leaves all layers of {graph.name} in floating point.")
    usual = next(iter(rounded.values()))
    how = {name: shared[name] for name in ("exclude", "in_float", "target", "activations", "simulate")}
    able, _ = places_of_integers(graph, None, weights=usual.partition("/")[0], corrections=(), **how)
    # What the target could run and the plan doesn't name stays; what it can't run stays for a reason of its own.
    special = {
        path: grids.get(path, FLOAT) for path in dict.fromkeys([*able, *grids]) if path in able or path in rounded
    }
    inner_first = dict(sorted(special.items(), key=lambda item: -item[0].count(".")))  # the first that fits wins
    corrections = shared["corrections"]
    return {
        **{name: shared[name] for name in _RULES},
        "corrections": corrections if isinstance(corrections, str) else tuple(corrections),
        "weights": usual.partition("/")[0],
        "per_layer": inner_first,
    }


def _shared(options: Sequence[Option]) -> Mapping[str, Json]:
    """Returns what the options have in common.

    Raises:
        PenjingError: something that they must have isn't there, or differs from one to another.
    """
    shared = {key: value for key, value in options[0].setting.items() if key not in _OWN}
    for option in options:
        unknown = [key for key in option.setting if key not in {*_RULES, *_OWN, "corrections"}]
        if unknown:
            raise PenjingError(
                f"The plan's setting at '{option.place.path}' has '{unknown[0]}', which quantisation doesn't know. "
                "Nothing was applied."
            )
        for key, value in option.setting.items():
            if key not in _OWN and shared.get(key) != value:
                raise PenjingError(
                    f"The plan's settings disagree on '{key}': {shared.get(key)!r} at '{options[0].place.path}', {value!r} "
                    f"at '{option.place.path}'. A graph is quantised in one go. Nothing was applied."
                )
    missing = [key for key in (*_RULES, "corrections") if key not in shared]
    if missing:
        raise PenjingError(
            f"The plan's setting at '{options[0].place.path}' lacks '{missing[0]}'. Nothing was applied."
        )
    check({name: shared[name] for name in _RULES}, _RULES)
    corrections = shared["corrections"]
    if not isinstance(corrections, str) and not (isinstance(corrections, list) and all(map(str, corrections))):
        raise PenjingError(f"The plan's corrections are {corrections!r}, which are no names. Nothing was applied.")
    return shared
