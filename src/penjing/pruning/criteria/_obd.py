"""Second-order estimate of how much the loss grows when a weight goes."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import criteria, makers


@criteria.register(
    source="LeCun et al., Optimal Brain Damage, 1990; diagonal by Hutchinson's estimator, 1989",
    needs={"data", "labels", "gradients"},
    level="weight",
)
def obd(evidence: Evidence) -> dict[str, Tensor]:
    """Optimal Brain Damage: ½ hᵢᵢ w², with the diagonal of the Gauss-Newton matrix G = Jᵀ H J for the Hessian.

    J holds the outputs' derivatives with respect to the weights, and H is the loss's Hessian with respect to the outputs. As
    the paper does, under the name of Levenberg and Marquardt, this leaves out the outputs' own second derivatives. The
    diagonal is the mean of Jᵀv ⊙ Jᵀ(Hv) over random signs v, with one draw for each batch.
    """
    weights = makers(evidence)
    generator = torch.Generator().manual_seed(evidence.seed)
    diagonal = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    batches = 0
    for model, outputs, loss in evidence.responses(weights):
        batches += 1
        signs = [(torch.randint(2, one.shape, generator=generator) * 2 - 1).to(one) for one in outputs]
        free = [one.detach().requires_grad_() for one in outputs]
        slopes = torch.autograd.grad(loss(free), free, create_graph=True, materialize_grads=True)
        along = torch.stack([(slope * sign).sum() for slope, sign in zip(slopes, signs, strict=True)]).sum()
        curved = torch.autograd.grad(along, free, materialize_grads=True)
        inner = [model.tensor(name) for name in weights]
        plain = torch.autograd.grad(outputs, inner, signs, retain_graph=True, materialize_grads=True)
        bent = torch.autograd.grad(outputs, inner, list(curved), materialize_grads=True)
        for name, one, other in zip(weights, plain, bent, strict=True):
            diagonal[name] += one * other
    return {name: weight.square() * diagonal[name] / (2 * max(batches, 1)) for name, weight in weights.items()}
