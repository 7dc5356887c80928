"""How much a layer's outputs change when a weight goes and the others make up for it as well as they can."""

from collections.abc import Mapping

import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.gram import grams, products
from penjing.pruning.criteria._registry import Compensated, criteria, makers

DAMPING = 0.01  # share of the Hessian's mean diagonal, as in SparseGPT


@criteria.register(
    source="Hassibi & Stork, Optimal Brain Surgeon, 1993; layer-wise: Frantar & Alistarh, SparseGPT, 2023",
    needs={"data"},
    level="weight",
)
def obs(evidence: Evidence) -> Compensated:
    """Optimal Brain Surgeon, by layer: w² / (2 [H⁻¹]ᵢᵢ) with H = X Xᵀ of the layer's inputs; the other weights make up.

    Once masks are chosen, each row of a layer's matrix is swept once: the weights behind a pruned weight take over its
    part of the output, as in SparseGPT. Where whole channels go, none of their weights is left to do so.
    """
    weights = makers(evidence)
    read = products(evidence, list(weights))
    for name, found in read.items():
        if not found:
            raise PenjingError(
                f"obs needs layers that are a product with their inputs (linear, 1-d and 2-d convolutions), and {name} is "
                "none; use another criterion, or leave that module out with exclude=…."
            )
    layers = {name: found[0] for name, found in read.items()}
    sums = grams(evidence, [layer for found in read.values() for layer in found])
    inverses = {name: _inverse(sums[layer.weight.name].double()) for name, layer in layers.items()}

    def rows(name: str, values: Tensor) -> Tensor:
        """Returns a layer's weights or mask as matrices, `(groups, outputs / groups, inputs / groups · kernel)`."""
        return layers[name].weight.view(values).flatten(1).unflatten(0, (layers[name].groups, -1))

    saliency = {}
    for name, weight in weights.items():
        diagonal = inverses[name].diagonal(dim1=1, dim2=2)[:, None]
        score = rows(name, weight).double().square() / (2 * diagonal)
        saliency[name] = layers[name].weight.restore(score.flatten(0, 1), weight)

    def swept(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, mask in masks.items():
            matrix = rows(name, weights[name]).double()
            matrix = sweep(matrix, rows(name, mask), inverses[name])
            found[name] = layers[name].weight.restore(matrix.flatten(0, 1), weights[name])
        return found

    return Compensated(saliency, weights=swept)


def sweep(matrix: Tensor, mask: Tensor, inverse: Tensor) -> Tensor:
    """Prunes the weights of each row from the first input to the last; the weights behind each one make up for it.

    Args:
        matrix: the weights, `(groups, outputs, inputs)`.
        mask: booleans of that shape; False is pruned.
        inverse: the inverse of the Hessian, `(groups, inputs, inputs)`.
    """
    factor = torch.linalg.cholesky(inverse, upper=True)  # row i: H⁻¹ once the inputs before i are settled
    matrix = matrix.clone()
    for i in range(matrix.shape[-1]):
        error = (matrix[..., i] * ~mask[..., i] / factor[:, i, i, None]).unsqueeze(-1)
        matrix[..., i:] -= error * factor[:, i, None, i:]
    return matrix * mask


def _inverse(gram: Tensor) -> Tensor:
    diagonal = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float32).tiny)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram + DAMPING * diagonal[:, None, None] * eye))
