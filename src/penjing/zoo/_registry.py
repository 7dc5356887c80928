"""The table of reference networks: name, paper, and the shape of an input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from penjing.registry import Registry

networks: Registry[Callable[..., nn.Module]] = Registry("network")


def build(name: str, num_classes: int | None = None, **options: Any) -> nn.Module:
    """Returns a fresh, untrained network.

    Args:
        name: one of `networks`; what stands behind `zoo:` on the command line.
        num_classes: how many outputs; None means the network's own number (10 or 1000).
        **options: what else the function of that name takes, such as `in_channels`.

    Raises:
        PenjingError: if there is no such network.

    Example:
        >>> build("resnet20").linear.out_features
        10
    """
    if num_classes is not None:
        options["num_classes"] = num_classes
    return networks[name].function(**options)


def example_input(name: str) -> Tensor:
    """Returns a batch of two random inputs, float32 (2, C, H, W), always the same, for the network as `build` makes it.

    Raises:
        PenjingError: if there is no such network.
    """
    shape = networks[name].traits["shape"]
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
