"""How much the loss at adversarial inputs depends on a unit."""

from collections.abc import Callable

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence, Inputs
from penjing.evidence.gates import gate_slopes
from penjing.pruning.criteria._registry import criteria

RADIUS = 0.14  # ε in standard deviations of the inputs: about 8/255 of an image's range
STEPS = 7  # steps of projected gradient descent
STRIDE = 2.5 / STEPS  # length of a step in units of ε: all steps together reach any point of the ball from any start


@criteria.register(
    source="attack: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018; gates: Molchanov "
    "et al., 2017; pruning on the adversarial loss: Sehwag et al., HYDRA, 2020",
    needs={"data", "labels", "gradients"},
    level="unit",
)
def adversarial(evidence: Evidence) -> list[Tensor]:
    """Adversarial: mean over samples of |Σ a ∂L/∂a|, how much the loss at attacked inputs changes when the unit's gate closes.

    This is a first-order estimate. The attacked inputs are those that projected gradient descent finds within ε of each
    sample in the maximum norm, by 7 steps of 2.5 ε / 7 from a random start. ε is 0.14 standard deviations of the batch's
    inputs, about 8/255 of the range of normalised images. HYDRA trains scores on the adversarial loss; here the scores
    are derivatives of that loss.
    """
    generator = torch.Generator().manual_seed(evidence.seed)
    scores = [torch.zeros(group.units) for group in evidence.groups]
    samples = 0
    for slopes in gate_slopes(evidence, lambda loss, inputs: attacked(loss, inputs, generator)):
        samples += slopes[0].shape[1]
        for score, slope in zip(scores, slopes, strict=True):
            score += slope.abs().sum(1)
    return [score / max(samples, 1) for score in scores]


def attacked(loss: Callable[[Inputs], Tensor], inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Returns inputs near the given ones at which the loss is high; integer inputs, such as tokens, stay as they are.

    Raises:
        PenjingError: all inputs are integers.
    """
    free = [position for position, one in enumerate(inputs) if one.is_floating_point()]
    if not free:
        raise PenjingError(
            "adversarial moves inputs a little, and those of this model are whole numbers; use another criterion."
        )
    found = list(inputs)
    radii = {i: RADIUS * inputs[i].std(correction=0) for i in free}
    for i in free:
        start = torch.rand(inputs[i].shape, generator=generator).to(inputs[i])
        found[i] = inputs[i] + radii[i] * (2 * start - 1)
    for _ in range(STEPS):
        moved = [found[i].detach().requires_grad_() for i in free]
        for i, one in zip(free, moved, strict=True):
            found[i] = one
        slopes = torch.autograd.grad(loss(tuple(found)), moved, materialize_grads=True)
        for i, one, slope in zip(free, moved, slopes, strict=True):
            step = one.detach() + STRIDE * radii[i] * slope.sign()
            found[i] = inputs[i] + (step - inputs[i]).clamp(-radii[i], radii[i])
    return tuple(found)
