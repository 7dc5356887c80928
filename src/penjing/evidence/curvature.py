"""Products of the loss's Hessian with a vector, which need no Hessian (Pearlmutter, 1994)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from penjing.evidence.evidence import Evidence

Named = dict[str, Tensor]


@dataclass(frozen=True)
class HessianProduct:
    """Results for one batch, each by parameter name.

    Attributes:
        slope: the gradient of the loss.
        vector: the vector that the Hessian multiplies.
        curved: the product of the Hessian with the vector.
    """

    slope: Named
    vector: Named
    curved: Named


def hessian_products(
    evidence: Evidence, names: Sequence[str], vector: Callable[[Named], Named]
) -> Iterator[HessianProduct]:
    """Yields, for each batch, the Hessian of the task's loss in these parameters times a vector.

    Args:
        evidence: the model and the data.
        names: the names of the parameters.
        vector: makes the vector from the gradient.

    Raises:
        PenjingError: there is no labelled data.
    """
    for model, loss in evidence.losses(names):
        parameters = [model.tensor(name) for name in names]
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            value = loss()
            slopes = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
            slope = {name: one.detach() for name, one in zip(names, slopes, strict=True)}
            chosen = vector(slope)
            along = sum((one * chosen[name]).sum() for name, one in zip(names, slopes, strict=True))
            curved = torch.autograd.grad(along, parameters, materialize_grads=True)  # type: ignore[arg-type]
        yield HessianProduct(slope, chosen, dict(zip(names, curved, strict=True)))
