"""The table of rank rules, and the rule that a name such as "energy:0.9" means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penjing.factorization.decompositions import Decomposition
from penjing.factorization.weighting import Weighting
from penjing.registry import Chosen, NumberedEntry, Registry

Ranks = tuple[int, ...]
RankRule = Callable[[Decomposition, Weighting, Sequence[int], float], Ranks]
"""From a decomposition, a weight and how its errors count, the layer's stride, and the rule's number to ranks."""


@dataclass(frozen=True, kw_only=True)
class RankRuleEntry(NumberedEntry[RankRule]):
    """A registered rank rule.

    Attributes:
        at_most: whether higher ranks than it finds break what was asked for; they are then rounded down.
        by_shape: whether the layer's shape alone decides, so that nothing need be known of its errors.
    """

    at_most: bool = False
    by_shape: bool = False


rank_rules = Registry("rank rule", RankRuleEntry)


class ChosenRule(Chosen[RankRuleEntry]):
    """A rank rule as the user typed it."""

    def ranks(self, decomposition: Decomposition, weighting: Weighting, stride: Sequence[int], step: int) -> Ranks:
        """Returns the ranks of a layer, in multiples of `step` where that leaves any, and such that they go together."""
        shape = tuple(weighting.weight.shape)
        found = decomposition.within(shape, self.entry.function(decomposition, weighting, stride, self.number))
        more = 0 if self.entry.at_most else step // 2
        rounded = tuple(
            min(limit, max(step, (rank + more) // step * step))
            for rank, limit in zip(found, decomposition.full(shape), strict=True)
        )
        return decomposition.within(shape, rounded)


def find(name: str) -> ChosenRule:
    """Returns the rule that `name` means, its number included.

    Raises:
        PenjingError: there is no such rule, or its number makes no sense.
    """
    return ChosenRule.read("ranks", name, rank_rules)
