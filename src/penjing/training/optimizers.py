"""The optimisers, with the usual conventions on which parameters decay."""

from collections.abc import Sequence

import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.training.layers import rate_factors
from penjing.training.settings import TrainingSettings


def default_lr(optimizer: str, batch: int) -> float:
    """Returns the peak learning rate: 0.1 per 128 samples for SGD (scaled linearly), 0.001 for AdamW."""
    return 0.1 * batch / 128 if optimizer == "sgd" else 1e-3


def make_optimizer(
    model: nn.Module, settings: TrainingSettings, lr: float, beside: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Returns the optimiser over the parameters that train; biases and norms (one axis or none) don't decay.

    Each group has an `lr_factor`, by which `set_rate` multiplies the learning rate.

    Args:
        model: the student; its parameters that require no gradient are left out.
        settings: the kind of optimiser, momentum, weight decay and layer decay.
        lr: the learning rate to begin with.
        beside: parameters that are trained beside the model, those of signal and balance; they don't decay either.

    Raises:
        PenjingError: no parameter requires a gradient.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise PenjingError("The model has no parameter that requires a gradient, so there is nothing to train.")
    factors = dict.fromkeys(parameters, 1.0)
    if settings.layer_decay < 1:
        factors = rate_factors(model, settings.layer_decay)
    groups = []
    for factor in sorted(set(factors.values()), reverse=True):  # the first group has the full rate, which reports show
        alike = [parameter for parameter in parameters if factors[parameter] == factor]
        decaying, others = [p for p in alike if p.ndim > 1], [p for p in alike if p.ndim <= 1]
        groups += [
            {"params": decaying, "weight_decay": settings.weight_decay, "lr_factor": factor},
            {"params": others, "weight_decay": 0.0, "lr_factor": factor},
        ]
    groups.append({"params": list(beside), "weight_decay": 0.0, "lr_factor": 1.0})
    groups = [group for group in groups if group["params"]]
    made: torch.optim.Optimizer
    if settings.optimizer == "adamw":
        made = torch.optim.AdamW(groups, lr=lr)
    else:
        made = torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    set_rate(made, lr)
    return made


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives each group of parameters its part of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]
