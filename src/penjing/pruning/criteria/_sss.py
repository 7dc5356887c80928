"""Scaling factors that training with an L1 penalty draws to zero where the loss hardly needs them."""

import torch
from torch import Tensor

from penjing.evidence import Evidence
from penjing.evidence.gates import gated_branches, gated_units
from penjing.pruning.criteria._registry import criteria

EPOCHS = 3  # epochs in which the factors are trained
RATE, MOMENTUM = 0.1, 0.9  # η and μ
SPARSITY = 0.03  # γ, the strength of the L1 penalty
TIES = 1e-3  # weight of a factor's mean magnitude during training, which orders the factors that end at zero


@criteria.register(
    source="Huang & Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, 2018",
    needs={"data", "labels", "gradients", "training"},
    level="unit",
    branches=True,
)
def sss(evidence: Evidence) -> list[Tensor]:
    """Sparse structure selection: |λ| of a factor on each unit or residual branch, trained with the penalty γ ‖λ‖₁.

    Factors start at 1 and are trained for three epochs of `batches` batches by the paper's accelerated proximal gradient.
    Weights are frozen; the paper trains them too, from scratch. Among factors that end at zero, those that were
    larger during training score higher.
    """
    sizes = [group.units for group in evidence.groups] or [len(evidence.branches)]
    factors = [torch.ones(size, requires_grad=True) for size in sizes]
    changes = gated_units(evidence, factors) if evidence.groups else gated_branches(evidence, factors[0])
    speeds = [torch.zeros(size) for size in sizes]
    ways = [torch.zeros(size) for size in sizes]
    steps = 0
    for loss in evidence.changed(changes, evidence.epochs or EPOCHS):
        steps += 1
        slopes = torch.autograd.grad(loss(), factors, materialize_grads=True)
        for factor, speed, slope, way in zip(factors, speeds, slopes, ways, strict=True):
            with torch.no_grad():
                moved, gained = step(factor, speed, slope, RATE, SPARSITY)
                factor.copy_(moved)
                speed.copy_(gained)
            way += factor.detach().abs()
    return [factor.detach().abs() + TIES * way / max(steps, 1) for factor, way in zip(factors, ways, strict=True)]


def step(factor: Tensor, speed: Tensor, slope: Tensor, rate: float, sparsity: float) -> tuple[Tensor, Tensor]:
    """Returns a factor and its speed after one step of the accelerated proximal gradient: the paper's (10) to (12).

    z = S(λ − η ∇G, η γ), v ← z − λ + μ v, λ ← z + μ v, with S the soft threshold.
    """
    moved = torch.nn.functional.softshrink(factor - rate * slope, rate * sparsity)
    speed = moved - factor + MOMENTUM * speed
    return moved + MOMENTUM * speed, speed
