"""`prune`: scores units or weights, chooses the ones that go, and removes or masks them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from penjing.checks import checked
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import Graph, branches
from penjing.graph.weights import weights
from penjing.pruning._branches import without_branches
from penjing.pruning._masks import shrunk, without_weights
from penjing.pruning._selection import Selection, share
from penjing.pruning._units import units_of, without_units
from penjing.pruning.allocations._registry import ChosenAllocation, Rounding, at_least
from penjing.pruning.allocations._registry import find as find_allocation
from penjing.pruning.criteria import criteria
from penjing.pruning.doors import RULES
from penjing.pruning.granularities._registry import ChosenGranularity, find
from penjing.pruning.settings import PruningSettings


@checked(**RULES)
def prune(
    graph: Graph,
    amount: float | Mapping[str, float] | None = None,
    *,
    criterion: str = "l2",
    granularity: str = "filter",
    allocation: str = "uniform",
    round_to: Rounding = None,
    min_channels: int = 1,
    units: str = "auto",
    data: Data | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: int = 16,
    seed: int = 0,
) -> Graph:
    """Returns a smaller or sparser copy of a graph. Its outputs keep their shapes, and `graph` stays as it was.

    The granularity decides what goes: "filter" removes channels, "head" heads of attention, "layer" residual branches, and
    "pattern" and "rectangle" positions of kernels, which get smaller. All other granularities keep the shapes and set
    weights to zero; `graph.masks` holds these at zero in further training.

    Args:
        graph: a captured graph.
        amount: share of the units to remove, 0 ≤ amount < 1; the share of each group's units with the uniform allocation.
            With `granularity="layer"` it is the share of the residual branches; with granularities that set weights to
            zero, the share of each layer's weights, including those that earlier masks hold at zero. None where the name
            of the granularity or the allocation says the amount, as "2:4", "rectangle:1x3" and "threshold:0.01" do. With
            `allocation="plan"`, a share for each place, by the place's name.
        criterion: the measure of how much a unit matters, a name in `penjing list criteria`.
        granularity: which weights stand or fall together, a name in `penjing list granularities`.
        allocation: how the amount is spread over the model, a name in `penjing list allocations`.
        round_to: keep multiples of this many units (or a function from a wanted to an allowed number); at least one
            step stays, and a group smaller than one step stays whole.
        min_channels: how many units each group keeps at least; a smaller group stays whole.
        units: what a unit of attention is, "heads", "features" or "auto"; see `channels`.
        data: the data that the criterion and the allocation look at, where they need it.
        include: patterns of module paths; if given, only channels and weights of matching modules are pruned. Channels with
            a fixed meaning, such as the classes of a softmax, go only where their module is named here in full; see
            `channels`.
        exclude: patterns of module paths whose channels, and whose layers, all stay.
        batches: how many batches of data the criterion looks at.
        seed: seed of the criteria that draw random numbers or shuffled data.

    Returns:
        The pruned graph. Its `plan` says what went, what was skipped, and where the amount asked for more than could go,
        because the last units of a place stay.

    Raises:
        PenjingError: an unknown name, an amount out of range, data that is missing, a model in which nothing can be
            removed, or a score that isn't a number.
    """
    settings = PruningSettings(
        amount, criterion, granularity, allocation, round_to, min_channels, units, include, exclude, batches, seed
    )
    return prune_with(graph, data, settings)


@torch.enable_grad()
def prune_with(graph: Graph, data: Data | None, settings: PruningSettings) -> Graph:
    """Returns what `prune` does with these settings."""
    selection, where = selection_of(graph, data, settings), settings.where
    batches, seed = settings.batches, settings.seed
    if selection.granularity.removes == "branches":
        left = branches(graph, **where)
        return without_branches(Evidence(graph, (), data, batches, seed, left), selection)
    if selection.granularity.removes == "weights":
        found = weights(graph, **where)
        names = tuple(weight.name for weight in found)
        small = without_weights(found, Evidence(graph, (), data, batches, seed, weights=names), selection)
        return shrunk(small, selection, found)
    groups = units_of(graph, selection.granularity, **where, units=settings.units)
    evidence = Evidence(graph, groups.groups, data, batches, seed, channels=groups)
    return without_units(groups, evidence, selection, at_least(settings.min_channels, settings.round_to))


def selection_of(graph: Graph, data: Data | None, settings: PruningSettings) -> Selection:
    """Returns the selection that the settings describe: looks up their names and checks that the choices fit one another.

    Raises:
        PenjingError: a name is unknown, or two choices don't fit.
    """
    chosen, judge = find(settings.granularity), criteria[settings.criterion]
    spread = find_allocation(settings.allocation)
    share_of = _amount(settings.amount, chosen, spread)
    if judge.needs & {"data", "labels", "gradients"} and data is None:
        raise PenjingError(f"The criterion '{settings.criterion}' needs data: pass data=….")
    if spread.entry.needs and data is None:
        raise PenjingError(f"The allocation '{settings.allocation}' needs data: pass data=….")
    if chosen.removes != "channels" and (settings.round_to, settings.min_channels, settings.units) != (None, 1, "auto"):
        what = {"branches": "removes whole branches", "weights": "sets single weights to zero"}[chosen.removes]
        raise PenjingError(
            f"round_to, min_channels and units speak of channels, and granularity='{settings.granularity}' {what}: leave "
            "them out."
        )
    scope: dict[str, Any] = {"include": list(settings.include), "exclude": list(settings.exclude)}
    scope |= {"batches": settings.batches, "seed": settings.seed}
    scope |= {"units": settings.units} if chosen.removes == "channels" else {}
    return Selection(share_of, judge, chosen, spread, scope=scope)


def check_choices(settings: PruningSettings) -> None:
    """Makes sure that the settings' names are known and the amount fits them, before there is a graph or any data.

    Raises:
        PenjingError: a name is unknown, or the amount is out of range, missing or given twice.
    """
    criteria[settings.criterion]
    _amount(settings.amount, find(settings.granularity), find_allocation(settings.allocation))


def _amount(
    amount: float | Mapping[str, float] | None, granularity: ChosenGranularity, allocation: ChosenAllocation
) -> Any:
    """Returns the amount in the form that the allocation takes; None where the granularity's name says the amount."""
    if granularity.stays is not None:
        if amount is not None or allocation.name != "uniform":
            raise PenjingError(
                f"granularity='{granularity.name}' already says how much stays: leave amount and allocation out."
            )
        return None
    if allocation.amount is not None:
        if amount is not None:
            raise PenjingError(f"allocation='{allocation.name}' already says how much goes: leave amount out.")
        return allocation.amount
    if allocation.entry.takes != "shares":
        return share(amount)
    if not isinstance(amount, Mapping):
        raise PenjingError(f"allocation='{allocation.name}' needs amount={{place: share, …}}, not {amount!r}.")
    return {name: share(one) for name, one in amount.items()}
