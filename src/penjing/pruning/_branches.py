"""Removes residual branches, so that the graph gets shorter."""

from collections.abc import Sequence

from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import Branch, Graph, remove_branches
from penjing.pruning._selection import Selection
from penjing.pruning.allocations._registry import Scored


def without_branches(evidence: Evidence, selection: Selection) -> Graph:
    """Returns a graph without the weakest branches.

    Raises:
        PenjingError: there is no branch, the criterion scores channels only, or scores aren't numbers.
    """
    found = evidence.branches
    if not found:
        raise PenjingError(
            "No residual branch can be removed: among the layers that include and exclude leave, nothing is added to a "
            "value of the same shape that it was computed from. granularity='filter' needs none."
        )
    (score,) = selection.scores(evidence, selection.saliency(evidence).saliency)
    (kept,) = selection.kept([score], None, [Scored("branches", (len(found),))])
    gone = _weakest(found, score, len(found) - kept)
    small = remove_branches(evidence.graph, gone)
    least = {"least": kept} if selection.empties(len(found)) else {}
    small.plan += [selection.step("branch", branch.name, 1, 0, 0, **least) for branch in gone]
    if least and not gone:
        small.plan += [selection.step("branch", found[0].name, 1, 1, 1, **least)]
    return small


def _weakest(found: Sequence[Branch], score: Tensor, count: int) -> list[Branch]:
    """Returns the `count` branches with the lowest scores; the branches inside a branch go with it, and count."""
    nodes = [frozenset(branch.nodes) for branch in found]
    with_it = [{i} | {j for j, one in enumerate(found) if one.addition in inner} for i, inner in enumerate(nodes)]
    order = score.argsort(stable=True).tolist()
    gone: set[int] = set()
    while len(gone) < count:  # ends: a branch whose inner branches have all gone adds only itself
        gone |= next(with_it[i] for i in order if i not in gone and len(gone | with_it[i]) <= count)
    return [found[i] for i in sorted(gone)]
