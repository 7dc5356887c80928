"""The signal "attention": the positions at which a network is active."""

from torch import Tensor

from penjing.distillation.comparison import Comparison
from penjing.distillation.inner import compared_taps, unit
from penjing.distillation.signals._registry import Signal, signals
from penjing.errors import PenjingError


@signals.register(
    source="Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, equation 2, arXiv:1612.03928",
    name="attention",
)
class Attention(Signal):
    """Asks for the positions at which the teacher's blocks are active, whatever their channels.

        loss = ½ · Σ over blocks of ‖Qᵗ / ‖Qᵗ‖ − Qˢ / ‖Qˢ‖‖², mean over samples, with Q = Σ over channels of value²

    Q has one entry per position. Equation 2 prints the norm of the difference; its square is what the authors' code has. Their
    weight β is 1000 over the number of positions. Vectors have no positions and are left out.
    """

    taps = "blocks"

    def prepare(self, seen: Comparison) -> None:
        """Makes nothing, since this signal learns nothing, and finds out whether the values can be compared."""
        _maps(seen)

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch."""
        losses = [(own - target).square().sum() / (2 * max(len(own), 1)) for own, target in _maps(seen)]
        return sum(losses[1:], losses[0])


def _maps(seen: Comparison) -> list[tuple[Tensor, Tensor]]:
    """Returns each pair of attention maps, `(samples, positions)`, of samples of which something counts."""
    found = []
    for pair in compared_taps(seen):
        if pair.student.ndim == 2:
            continue
        maps = [values.square().sum(1).flatten(1) for values in (pair.student, pair.teacher)]
        if pair.weights is not None:
            weights = pair.weights.flatten(1)
            maps = [(each * weights)[weights.sum(1) > 0] for each in maps]
        found.append((unit(maps[0]), unit(maps[1])))
    if not found:
        raise PenjingError(
            "Attention transfer compares positions, and the inner values are vectors (N, channels), which have none. Name "
            'maps or sequences with taps=, or use signal="hints", which compares vectors too.'
        )
    return found
