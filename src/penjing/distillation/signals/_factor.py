"""The signal "factor": a short paraphrase of the teacher's inner values."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from penjing.distillation.comparison import Comparison
from penjing.distillation.inner import Compared, compared_taps, unit
from penjing.distillation.signals._registry import Signal, signals

SLOPE = 0.1  # of leaky ReLU below zero, as the authors have it


@signals.register(
    source="Kim, Park and Kwak, Paraphrasing Complex Network: Network Compression via Factor Transfer, NeurIPS 2018, "
    "arXiv:1802.04977",
    name="factor",
)
class Factor(Signal):
    """Asks for what a paraphraser, an autoencoder of the teacher's values, finds in them; a translator makes it of the student's.

        transfer = Σ |Fᵗ / ‖Fᵗ‖ − Fˢ / ‖Fˢ‖| over the factors of a sample, mean over samples
        reconstruction = ‖t − decoder(Fᵗ)‖² / ‖t‖², over the positions that count
        loss = transfer + reconstruction, mean over the pairs of inner values

    with Fᵗ = encoder(t) and Fˢ = translator(s). The gradient of the reconstruction reaches the paraphraser alone, and that of
    the transfer the student and the translator alone. The paper trains the paraphraser first and then keeps it as it is; here
    both are trained together, and the reconstruction is relative, so that it weighs the same for every teacher. Encoder,
    translator and decoder have three layers each, of leaky ReLUs: 3×3 convolutions of maps, linear maps of the channels of
    sequences and vectors.
    """

    taps = "last"

    def __init__(self, rate: float = 0.5) -> None:
        """Takes how many factors there are for each of the teacher's channels; the paper has 0.5 and 0.75."""
        super().__init__()
        self.rate = rate
        self.encoders, self.decoders, self.translators = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()

    def prepare(self, seen: Comparison) -> None:
        """Makes paraphrasers and translators.

        Raises:
            PenjingError: there is nothing to compare, or values can't be compared.
        """
        for pair in compared_taps(seen):
            own, target = pair.student.shape[1], pair.teacher.shape[1]
            factors = max(round(self.rate * target), 1)
            axes = pair.student.ndim - 2
            self.encoders.append(_layers([target, target, factors, factors], axes).to(pair.teacher))
            self.decoders.append(_layers([factors, factors, target, target], axes).to(pair.teacher))
            self.translators.append(_layers([own, own, factors, factors], axes).to(pair.student))

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch."""
        networks = zip(self.encoders, self.decoders, self.translators, strict=True)
        losses = [self._apart(pair, *those) for pair, those in zip(compared_taps(seen), networks, strict=True)]
        return sum(losses[1:], losses[0]) / len(losses)

    def _apart(self, pair: Compared, encoder: nn.Module, decoder: nn.Module, translator: nn.Module) -> Tensor:
        weights = pair.teacher.new_ones(1) if pair.weights is None else pair.weights.unsqueeze(1)
        teacher = pair.teacher * (weights > 0)  # convolutions would carry what doesn't count to its neighbours
        found = encoder(teacher)
        off = ((teacher - decoder(found)).square() * weights).sum() / (teacher.square() * weights).sum().clamp(
            min=torch.finfo(teacher.dtype).tiny
        )
        factors = [(each * weights).flatten(1) for each in (translator(pair.student * (weights > 0)), found.detach())]
        own, target = (unit(each) for each in factors)
        apart = (own - target).abs().sum(1)
        if pair.weights is None:
            return apart.mean() + off
        kept = pair.weights.flatten(1).sum(1) if pair.weights.ndim > 1 else pair.weights
        return apart[kept > 0].sum() / (kept > 0).sum().clamp(min=1) + off


def _layers(widths: list[int], axes: int) -> nn.Sequential:
    """Returns layers from each width to the next, each with a leaky ReLU, for values with so many axes of positions."""
    made: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        made += [_layer(inside, outside, axes), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*made)


def _layer(inside: int, outside: int, axes: int) -> nn.Module:
    if axes == 0:
        return nn.Linear(inside, outside)
    if axes == 1:
        return nn.Conv1d(inside, outside, 1)  # neighbours in a sequence of patches are no neighbours in the picture
    return (nn.Conv2d if axes == 2 else nn.Conv3d)(inside, outside, 3, padding=1)
