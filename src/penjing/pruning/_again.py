"""Repeats a plan's pruning: removes the same units, branches and weights, given the indices of those that stay."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from penjing.checks import COUNT, PATTERNS, SEED, TEXT, check
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import Graph, Option, Place, branches, remove_branches
from penjing.graph.places import unknown_place
from penjing.graph.weights import weights
from penjing.pruning._masks import shrunk, without_weights
from penjing.pruning._selection import Selection
from penjing.pruning._units import units_of, without_units
from penjing.pruning.allocations._registry import find as find_allocation
from penjing.pruning.criteria import criteria
from penjing.pruning.granularities._registry import find

# The keys of a setting other than "keep", each with the rule for its value.
_RULES = {
    "granularity": TEXT,
    "criterion": TEXT,
    "allocation": TEXT,
    "include": PATTERNS,
    "exclude": PATTERNS,
    "batches": COUNT,
    "seed": SEED,
}
_UNITS = {"units": TEXT}  # only settings of channels have this key

Setting = Mapping[str, Any]


@torch.enable_grad()
def prune_again(graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
    """Returns a pruned copy of a graph: carries the options out in their order, and leaves `graph` as it was.

    One call of `prune` makes several options, which differ only in their places and numbers. Such neighbours are carried
    out together, as one call. Which units stay depends only on their number, the criterion, the data and the seed, so that
    the same graph and data give the same weights.

    Args:
        graph: the graph as it was before the first option was carried out.
        options: options of the technique "prune".
        data: the data that the options were made with; only criteria that look at data need it.

    Raises:
        PenjingError: the graph has no place that an option names, a setting makes no sense, data is missing, or an option
            was chosen in the course of a training, which a plan can't repeat.
    """
    for call in _calls(options):
        graph = _call_again(graph, call, data)
    return graph


def _calls(options: Iterable[Option]) -> list[list[Option]]:
    """Groups neighbouring options that one call of `prune` made."""
    found: list[list[Option]] = []
    for option in options:
        last = found[-1] if found else []
        again = any(option.place == other.place for other in last)
        if not last or again or _shared(option) != _shared(last[0]):
            found.append([])
        found[-1].append(option)
    return found


def _shared(option: Option) -> dict[str, Any]:
    return {name: value for name, value in option.setting.items() if name != "keep"}


def _call_again(graph: Graph, call: Sequence[Option], data: Data | None) -> Graph:
    setting = _checked(call)
    granularity = find(setting["granularity"])
    scope = {name: setting[name] for name in ("include", "exclude", "batches", "seed", "units") if name in setting}
    selection = Selection(
        None, criteria[setting["criterion"]], granularity, find_allocation(setting["allocation"]), scope=scope
    )
    if granularity.stays is None:
        keep = {option.place.path: option.setting["keep"] for option in call if "keep" in option.setting}
        selection = replace(selection, keep=keep)
    if selection.criterion.needs & {"data", "labels", "gradients"} and data is None:
        raise PenjingError(
            f"The plan chose by the criterion '{selection.criterion.name}', which needs data: pass data=…."
        )
    where = {"include": setting["include"], "exclude": setting["exclude"]}
    batches, seed = setting["batches"], setting["seed"]
    if granularity.removes == "branches":
        there = branches(graph, **where)
        _check_places(graph, call, [Place("branch", branch.name) for branch in there])
        gone = {option.place.path for option in call if option.after == 0}
        small = remove_branches(graph, [branch for branch in there if branch.name in gone])
    elif granularity.removes == "weights":
        found = weights(graph, **where)
        _check_places(graph, call, [Place("weight", weight.place) for weight in found])
        names = tuple(weight.name for weight in found)
        small = shrunk(
            without_weights(found, Evidence(graph, (), data, batches, seed, weights=names), selection), selection, found
        )
    else:
        groups = units_of(graph, granularity, **where, units=setting["units"])
        _check_places(graph, call, [Place("group", group.name) for group in groups.groups])
        _check_counts(call, {group.name: group.units for group in groups.groups})
        evidence = Evidence(graph, groups.groups, data, batches, seed, channels=groups)
        small = without_units(groups, evidence, selection, None)
    small.plan = graph.plan + call
    return small


def _checked(call: Sequence[Option]) -> Setting:
    """Returns the setting that the options of a call share, once it is checked.

    Raises:
        PenjingError: the setting makes no sense, or the call can't be repeated.
    """
    setting, place = call[0].setting, call[0].place
    if "schedule" in setting:
        raise PenjingError(
            f"The plan pruned '{place.path}' in the course of a training (schedule '{setting['schedule']}'), which a plan "
            "alone can't repeat. The pruned weights are in the .penjing file that was written with the plan."
        )
    rules = _RULES | (_UNITS if "units" in setting else {})
    missing = [name for name in rules if name not in setting]
    if missing:
        raise PenjingError(f"The plan's setting at '{place.path}' lacks '{missing[0]}'. Nothing was applied.")
    check({name: setting[name] for name in rules}, rules)
    if find(setting["granularity"]).removes == "channels" and "units" not in setting:
        raise PenjingError(f"The plan's setting at '{place.path}' lacks 'units'. Nothing was applied.")
    for option in call:
        keep = option.setting.get("keep", 0)
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
            raise PenjingError(f"The plan keeps {keep!r} units at '{option.place.path}', which is no number of units.")
    return setting


def _check_places(graph: Graph, call: Sequence[Option], there: Sequence[Place]) -> None:
    for option in call:
        if option.place not in there:
            raise unknown_place(option.place, there, graph.name)


def _check_counts(call: Sequence[Option], units: Mapping[str, int]) -> None:
    for option in call:
        keep, own = option.setting.get("keep"), units[option.place.path]
        if keep is None or not 1 <= keep <= own or (option.before is not None and option.before != own):
            raise PenjingError(
                f"The plan keeps {keep} of {option.before} units of '{option.place.path}', which has {own}: it is the plan "
                "of another model. Nothing was applied."
            )
