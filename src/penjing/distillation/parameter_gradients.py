"""The gradients that a network's parameters would have, of a network that isn't trained."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def parameter_gradients(network: nn.Module, inputs: Sequence[Any], loss: Callable[[Any], Tensor]) -> dict[str, Tensor]:
    """Returns the gradients of a loss with respect to a network's parameters, by name.

    The network may be frozen and stays so: stand-ins that share its memory take the place of the parameters, so that
    nothing of the network is written to, its `.grad` least of all.

    Args:
        network: a teacher.
        inputs: of the network.
        loss: from the network's outputs to a scalar.

    Returns:
        One tensor for each floating-point parameter that the loss depends on.
    """
    stand_ins = {
        name: parameter.detach().requires_grad_()
        for name, parameter in network.named_parameters()
        if parameter.is_floating_point()
    }
    with torch.enable_grad():
        outputs = torch.func.functional_call(network, stand_ins, tuple(inputs))
        found = torch.autograd.grad(loss(outputs), list(stand_ins.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(stand_ins, found, strict=True) if gradient is not None}
