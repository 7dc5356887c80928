"""The signal "relations": the distances and angles between the samples of a batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from penjing.distillation.comparison import Comparison
from penjing.distillation.inner import compared_taps
from penjing.distillation.signals._registry import Signal, signals
from penjing.errors import PenjingError

NEAR = 1e-6  # of the mean distance: two samples that are nearer to one another have no direction


@signals.register(
    source="Park et al., Relational Knowledge Distillation, CVPR 2019, arXiv:1904.05068", name="relations"
)
class Relations(Signal):
    """Asks for the distances and angles between the samples of a batch, whatever the number of channels.

        distance:  mean over pairs i ≠ j of h(‖tᵢ − tⱼ‖ / μᵗ, ‖sᵢ − sⱼ‖ / μˢ), with μ the mean distance of the batch
        angle:     mean over different i, j, k of h(cos ∠ tᵢ tⱼ tₖ, cos ∠ sᵢ sⱼ sₖ)
        loss = distance_weight · distance + angle_weight · angle

    h is Huber's loss, ½ · difference² up to a difference of 1 and linear beyond. A map or sequence is averaged over the
    positions that count, into one vector for each sample. The weights 1 and 2 are those of the paper's metric learning; with
    cross-entropy beside it, for classification, the authors' code has 25 and 50. Time and memory grow with the third power of
    the batch: 128 samples have two million angles.
    """

    taps = "last"

    def __init__(self, distance_weight: float = 1.0, angle_weight: float = 2.0) -> None:
        """Takes the weights of distances and of angles."""
        super().__init__()
        self.distance_weight, self.angle_weight = distance_weight, angle_weight

    def prepare(self, seen: Comparison) -> None:
        """Makes nothing, since this signal learns nothing, and finds out whether there is something to compare.

        Raises:
            PenjingError: values can't be compared, or the batch has fewer than three samples.
        """
        for pair in compared_taps(seen):
            if len(pair.student) < 3:
                raise PenjingError(
                    f"Relations are distances and angles between the samples of a batch, and a batch of {len(pair.student)} "
                    "has none. Give batches of three samples or more, better of 32."
                )

    def forward(self, seen: Comparison) -> Tensor:
        """Returns the loss of a batch, mean over the pairs of inner values; 0 for a last batch of a single sample."""
        losses = [self._apart(*pair.samples()) for pair in compared_taps(seen)]
        return sum(losses[1:], losses[0]) / len(losses)

    def _apart(self, student: Tensor, teacher: Tensor) -> Tensor:
        (own, own_angles), (target, target_angles) = _relations(student), _relations(teacher)
        loss = self.distance_weight * _huber(own, target)
        return loss + self.angle_weight * _huber(own_angles, target_angles)


def _huber(own: Tensor, target: Tensor) -> Tensor:
    return F.smooth_l1_loss(own, target, reduction="sum") / max(own.numel(), 1)


def _relations(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the distances of all pairs over their mean, and the cosines of all angles, of vectors `(samples, channels)`."""
    between = samples.unsqueeze(0) - samples.unsqueeze(1)  # [j, i] = sample i − sample j
    distances = between.norm(dim=2)
    others = ~torch.eye(len(samples), dtype=torch.bool, device=samples.device)
    mean = distances[others].mean().clamp(min=torch.finfo(samples.dtype).tiny) if len(samples) > 1 else distances.sum()
    apart = (distances > NEAR * mean).unsqueeze(2)
    directions = torch.where(apart, between, 0) / torch.where(apart, distances.unsqueeze(2), 1)
    cosines = directions @ directions.transpose(1, 2)  # [j, i, k]: at sample j
    triples = others.unsqueeze(2) & others.unsqueeze(1) & others.unsqueeze(0)
    return distances[others] / mean, cosines[triples]
