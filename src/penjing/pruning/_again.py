"""Repeats a plan's pruning: removes the same units, branches and weights, given the indices of those that stay."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from penjing.checks import COUNT, SEED, Unfit, check, number, optional, whole
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


@dataclass(frozen=True)
class _Setting:
    """The setting of an option that prunes; `keep` is missing where the granularity's name says how much stays."""

    granularity: str
    criterion: str
    allocation: str
    include: str | tuple[str, ...]
    exclude: str | tuple[str, ...]
    batches: int
    seed: int
    units: str | None = None  # only settings of channels have it
    keep: int | None = None
    amount: float | None = None  # how the number that stays came about, as `round_to` tells too
    round_to: int | None = None
    schedule: str | None = None

    @property
    def scope(self) -> dict[str, Any]:
        """What a selection's scope holds."""
        names = ("include", "exclude", "batches", "seed", "units")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


_RULES = {
    "batches": COUNT,
    "seed": SEED,
    "keep": optional(whole(0, 2**63 - 1)),
    "amount": optional(number(0, most=1)),
    "round_to": optional(COUNT),
}


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
    settings = [_checked(option) for option in call]
    setting = settings[0]
    granularity = find(setting.granularity)
    selection = Selection(
        None, criteria[setting.criterion], granularity, find_allocation(setting.allocation), scope=setting.scope
    )
    keep = {option.place.path: one.keep for option, one in zip(call, settings, strict=True) if one.keep is not None}
    if granularity.stays is None:
        selection = replace(selection, keep=keep)
    if selection.criterion.needs & {"data", "labels", "gradients"} and data is None:
        raise PenjingError(
            f"The plan chose by the criterion '{selection.criterion.name}', which needs data: pass data=…."
        )
    where = {"include": setting.include, "exclude": setting.exclude}
    batches, seed = setting.batches, setting.seed
    if granularity.removes == "branches":
        there = branches(graph, **where)
        _check_places(graph, call, [Place("branch", branch.name) for branch in there])
        small = remove_branches(graph, [branch for branch in there if keep.get(branch.name) == 0])
    elif granularity.removes == "weights":
        found = weights(graph, **where)
        _check_places(graph, call, [Place("weight", weight.place) for weight in found])
        names = tuple(weight.name for weight in found)
        small = shrunk(
            without_weights(found, Evidence(graph, (), data, batches, seed, weights=names), selection), selection, found
        )
        _check_left(call, small.plan.options[len(graph.plan) :])
    else:
        groups = units_of(graph, granularity, **where, units=setting.units or "")
        _check_places(graph, call, [Place("group", group.name) for group in groups.groups])
        _check_counts(call, keep, {group.name: group.units for group in groups.groups})
        evidence = Evidence(graph, groups.groups, data, batches, seed, channels=groups)
        small = without_units(groups, evidence, selection, None)
    small.plan = graph.plan + call
    return small


def _checked(option: Option) -> _Setting:
    """Returns an option's setting.

    Raises:
        PenjingError: the setting makes no sense, what else the option says contradicts it, or it can't be repeated.
    """
    setting = option.setting_as(_Setting)
    if setting.schedule is not None:
        raise PenjingError(
            f"The plan pruned '{option.place.path}' in the course of a training (schedule '{setting.schedule}'), which a plan "
            "alone can't repeat. The pruned weights are in the .penjing file that was written with the plan."
        )
    try:
        check({name: getattr(setting, name) for name in _RULES}, _RULES)
    except Unfit as error:
        raise option.refused(str(error)) from error
    granularity = find(setting.granularity)
    if granularity.removes == "channels" and setting.units is None:
        raise option.refused("'units' is missing.")
    if granularity.stays is not None and setting.keep is not None:
        raise option.refused(
            f"'keep' is {setting.keep}, but granularity='{granularity.name}' says itself how much stays."
        )
    if granularity.stays is None and setting.keep is None and "skipped" not in option.found:
        raise option.refused("'keep' is missing.")
    if granularity.removes == "branches" and setting.keep not in (0, 1):
        raise option.refused(f"'keep' is {setting.keep}: of a branch 0 or 1 stay.")
    if granularity.removes != "weights":  # of weights, `keep` counts rows, and `after` single entries
        option.check_after("keep", setting.keep)
    return setting


def _check_places(graph: Graph, call: Sequence[Option], there: Sequence[Place]) -> None:
    for option in call:
        if option.place not in there:
            raise unknown_place(option.place, there, graph.name)


def _check_counts(call: Sequence[Option], keep: Mapping[str, int], units: Mapping[str, int]) -> None:
    for option in call:
        kept, own = keep[option.place.path], units[option.place.path]
        if not 1 <= kept <= own or (option.before is not None and option.before != own):
            whole = own if option.before is None else option.before
            raise PenjingError(
                f"The plan keeps {kept} of {whole} units of '{option.place.path}', which has {own}: it is the plan "
                "of another model. Nothing was applied."
            )


def _check_left(call: Sequence[Option], made: Sequence[Option]) -> None:
    """Makes sure that as many entries of each weight are left as the plan says."""
    left = {option.place: option.after for option in made}
    for option in call:
        option.check_after("granularity" if "keep" not in option.setting else "keep", left[option.place])
