"""The table of reference networks: name, paper, and the shape of an input."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

from penjing.checks import TEXT, checked, whole
from penjing.registry import Entry, Registry

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")

_RULES = {"num_classes": whole(1, 2**20), "in_channels": whole(1, 2**16), "size": whole(1, 2**16)}


@dataclass(frozen=True, kw_only=True)
class NetworkEntry(Entry[Callable[..., nn.Module]]):
    """A registered network.

    Attributes:
        shape: (channels, height, width) of one input of the network as `build` makes it.
    """

    shape: tuple[int, int, int]


class Networks(Registry[NetworkEntry, P]):
    """The table of reference networks; the arguments of all are checked by the same rules."""

    def register(self, *args: P.args, **fields: P.kwargs) -> Callable[[F], F]:
        """Returns a decorator that registers a function under its own name and lets it check its arguments."""
        add = super().register(*args, **fields)

        def behind_a_door(function: F) -> F:
            known = inspect.signature(function).parameters
            door: Any = checked(**{name: rule for name, rule in _RULES.items() if name in known})
            return cast(F, add(door(function)))

        return behind_a_door


networks = Networks("network", NetworkEntry)


@checked(name=TEXT)
def build(name: str, num_classes: int | None = None, **options: Any) -> nn.Module:
    """Returns a fresh, untrained network.

    Args:
        name: one of `networks`, the same name as after `zoo:` on the command line.
        num_classes: number of outputs; None means the network's own number (10 or 1000).
        **options: other arguments of the function of that name, such as `in_channels`.

    Raises:
        PenjingError: there is no such network.

    Example:
        >>> build("resnet20").linear.out_features
        10
    """
    if num_classes is not None:
        options["num_classes"] = num_classes
    return networks[name].function(**options)


@checked(name=TEXT)
def example_input(name: str) -> Tensor:
    """Returns two random inputs as one batch, float32 (2, C, H, W), always the same, for the network as `build` makes it.

    Raises:
        PenjingError: there is no such network.
    """
    shape = networks[name].shape
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
