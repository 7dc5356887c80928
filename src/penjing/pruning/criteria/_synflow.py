"""How much flows through a weight when all parameters and inputs are positive, before training and without data."""

import copy

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.pruning.criteria._registry import criteria, makers
from penjing.pruning.linearized import absolute, ones


@criteria.register(
    source="Tanaka et al., Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow, 2020",
    level="weight",
)
def synflow(evidence: Evidence) -> dict[str, Tensor]:
    """Synaptic flow |w ∂R/∂w|, where R is the sum of outputs for inputs of ones and for the parameters' magnitudes.

    This is one round of the paper, which prunes in 100 rounds, scores anew in each, and ranks all weights together
    (`allocation="global:none"`). The rounds keep layers from being emptied. Activation functions that change positive
    values, as sigmoids do, stay in the network.
    """
    model = absolute(copy.deepcopy(evidence.graph))
    outputs = model.program(*ones(model))
    weights = makers(evidence)
    inner = [model.tensor(name) for name in weights]
    slopes = torch.autograd.grad(sum(one.sum() for one in outputs), inner, materialize_grads=True)  # type: ignore
    flow = {name: (w * slope).detach() for name, w, slope in zip(weights, inner, slopes, strict=True)}
    return {name: flow[name].to(weight.dtype) for name, weight in weights.items()}
