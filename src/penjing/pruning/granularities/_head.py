"""Heads of attention."""

from collections.abc import Callable, Mapping

from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.graph import Channels, Graph, Group
from penjing.graph.channels.heads import heads
from penjing.pruning.granularities._filter import filter_
from penjing.pruning.granularities._registry import granularities


def _among(graph: Graph, found: Channels) -> tuple[Group, ...]:
    groups = heads(graph, found)
    if not groups:
        raise PenjingError(
            "No head of attention can be removed: among the layers that include and exclude leave, none makes several "
            "heads of queries, keys and values. granularity='filter' needs none."
        )
    return groups


@granularities.register(
    source="Michel et al., Are Sixteen Heads Really Better than One?, 2019",
    removes="channels",
    among=_among,
    units="heads",
)
def head(evidence: Evidence, saliency: Mapping[str, Tensor], finish: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Heads: a key head goes with all query heads that it serves; scored as filters are, and tensors shrink."""
    return filter_(evidence, saliency, finish)
