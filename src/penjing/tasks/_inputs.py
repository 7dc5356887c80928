"""Inputs of a batch: tensors in the order of the network's inputs, or one mapping of tensors by the inputs' names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

Inputs = tuple[Any, ...]
"""Tensors, or a single dictionary of them by name; `run_on` calls a network with both."""


def inputs_of(value: Any) -> Inputs | None:
    """Returns the inputs of a network as a tuple; None for anything that can't be these.

    Args:
        value: a tensor, a tuple or list of tensors, or a mapping of tensors by name, such as Hugging Face's `BatchEncoding`; an
            entry that is None is an optional input that is left out.
    """
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, Mapping):
        named = {str(name): one for name, one in value.items() if one is not None}
        return (named,) if named and all(isinstance(one, Tensor) for one in named.values()) else None
    if isinstance(value, tuple | list) and value and all(isinstance(item, Tensor) for item in value):
        return tuple(value)
    return None


def sample_count(inputs: Sequence[Any]) -> int:
    """Returns the number of samples in a batch: the length of its first input with an axis."""
    return next((len(one) for one in pytree.tree_leaves(list(inputs)) if isinstance(one, Tensor) and one.ndim), 1)


def each_input(inputs: Sequence[Any], change: Callable[[Tensor], Any]) -> Inputs:
    """Returns inputs of the same form, with each tensor changed by a function."""
    return tuple(pytree.tree_map_only(Tensor, change, one) for one in inputs)


def by_name(inputs: Sequence[Any]) -> Mapping[str, Any] | None:
    """Returns the inputs by name, where they have names."""
    return inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Mapping) else None


def run_on(network: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    """Calls a network; a plain module gets inputs that have names as keyword arguments.

    Graphs, sessions and user's functions take the mapping itself. A module that does so, too, has an attribute `takes_mapping`.
    """
    named = by_name(inputs)
    if named is None or not isinstance(network, nn.Module) or getattr(network, "takes_mapping", False):
        return network(*inputs)
    return network(**named)
