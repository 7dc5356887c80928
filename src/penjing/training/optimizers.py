"""The optimisers, with the usual conventions on which parameters decay."""

from collections.abc import Sequence

import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.training.settings import TrainingSettings


def default_lr(optimizer: str, batch: int) -> float:
    """Returns the peak learning rate: 0.1 per 128 samples for SGD (scaled linearly), 0.001 for AdamW."""
    return 0.1 * batch / 128 if optimizer == "sgd" else 1e-3


def make_optimizer(
    model: nn.Module, settings: TrainingSettings, lr: float, beside: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Returns the optimiser over the parameters that train; biases and norms (one axis or none) don't decay.

    Args:
        model: the student; its parameters that require no gradient are left out.
        settings: the kind of optimiser, momentum and weight decay.
        lr: the learning rate to begin with.
        beside: parameters that are trained beside the model, those of signal and balance; they don't decay either.

    Raises:
        PenjingError: no parameter requires a gradient.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise PenjingError("The model has no parameter that requires a gradient, so there is nothing to train.")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        {"params": list(beside), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
