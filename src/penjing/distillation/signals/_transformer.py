"""The signal "transformer": hidden states and attention scores, as in TinyBERT."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penjing.distillation.comparison import Comparison, mean_over
from penjing.distillation.inner import compared, inner_values, not_comparable, regressor
from penjing.distillation.positions import position_weights
from penjing.distillation.signals._registry import Signal, signals
from penjing.errors import PenjingError

Pair = tuple[Tensor, Tensor]


@signals.register(
    source="Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, Findings of EMNLP 2020, equations 7 "
    "and 8, arXiv:1909.10351",
    name="transformer",
)
class Transformer(Signal):
    """Asks a transformer for its teacher's hidden states and attention scores.

        hidden states:  mean((hˢ W − hᵗ)²) at the end of each block
        attention:      mean over heads of mean((Aˢ − Aᵗ)²) in each layer, with A = Q Kᵀ / √width, before the softmax
        loss = the sum of both over the blocks and layers that are compared

    W is learned where widths differ (the paper has one for all blocks; pruned blocks may differ, so here each has its own).
    Where the student has other heads than its teacher, the means over heads are compared. Positions that don't count are
    left out of hidden states, and of attention both where they look and where they are looked at. The paper's third
    part, the answers, is another signal, "soft_labels", and its embeddings are the first block's input.
    """

    taps = "transformer"

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleList()

    def prepare(self, seen: Comparison) -> None:
        """Makes the projections of hidden states.

        Raises:
            PenjingError: there is nothing to compare, or values can't be compared.
        """
        hidden, _ = _sorted(inner_values(seen))
        self.projections = nn.ModuleList(regressor(own, target, bias=False) for own, target in hidden)
        with torch.no_grad():
            self(seen)

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch."""
        hidden, attention = _sorted(inner_values(seen))
        losses = []
        for projection, (own, target) in zip(self.projections, hidden, strict=True):
            pair = compared(projection(own), target, seen.counted)
            losses.append(pair.mean((pair.student - pair.teacher).square().mean(1)))
        for queries, keys in zip(attention[::2], attention[1::2], strict=True):
            losses.append(_scores_apart(queries, keys, seen.counted))
        return torch.stack(losses).sum()


def _sorted(values: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Returns the pairs of hidden states, and those of queries and keys in turn.

    Raises:
        PenjingError: there are values of other shapes, or queries without keys.
    """
    hidden = [pair for pair in values if pair[0].ndim == 3]
    attention = [pair for pair in values if pair[0].ndim == 4]
    odd = [pair for pair in values if pair[0].ndim not in (3, 4) or pair[0].ndim != pair[1].ndim]
    if odd:
        raise not_comparable(*odd[0])
    if len(attention) % 2:
        raise PenjingError(
            "The signal 'transformer' compares hidden states (N, positions, channels), and of each attention layer queries and "
            f"keys (N, heads, positions, width), but got {len(attention)} values with four axes, which is odd. Name queries "
            'and keys in turn with taps=, or use signal="blocks", which takes maps.'
        )
    return hidden, attention


def _scores_apart(queries: Pair, keys: Pair, counted: Tensor | None) -> Tensor:
    """Returns the mean squared difference of the attention scores of student and teacher."""
    own, target = (
        query @ key.transpose(2, 3) / math.sqrt(query.shape[3]) for query, key in zip(queries, keys, strict=True)
    )
    if own.shape[1] != target.shape[1]:
        own, target = own.mean(1, keepdim=True), target.mean(1, keepdim=True)
    if own.shape != target.shape:
        raise not_comparable(*queries)
    apart = (own - target).square().mean(1)
    looking = position_weights(counted, apart.shape[:2])
    looked_at = position_weights(counted, apart.shape[::2])
    if looking is None or looked_at is None:
        return apart.mean()
    return mean_over(apart, looking.unsqueeze(2) * looked_at.unsqueeze(1))
