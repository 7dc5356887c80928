"""The table from a Keras layer to its form in PyTorch, and what a form is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.errors import PenjingError


@dataclass(frozen=True)
class Call:
    """A layer as it is called once.

    Attributes:
        layer: Keras' layer or operation.
        path: its name, behind those of the models around it.
        shapes: of the inputs, as Keras has them; None for a free size.
        flattened: the image's (height, width, channels) where the input is one that was flattened with its channels first.
    """

    layer: Any
    path: str
    shapes: tuple[tuple[int | None, ...], ...]
    flattened: tuple[int, int, int] | None = None

    @property
    def rank(self) -> int:
        """How many axes the first input has."""
        return len(self.shapes[0])

    def weight(self, name: str) -> torch.Tensor:
        """Returns a weight's values in float32."""
        return values(getattr(self.layer, name))


Maker = Callable[[Call], nn.Module | Callable[..., Any]]

FORMS: dict[str, Maker] = {}


def form(*names: str) -> Callable[[Maker], Maker]:
    """Returns a decorator that registers a function as the form of these classes of Keras'."""

    def add(maker: Maker) -> Maker:
        FORMS.update(dict.fromkeys(names, maker))
        return maker

    return add


def values(variable: Any) -> torch.Tensor:
    """Returns a Keras variable's or tensor's values, of whatever backend, in float32."""
    import keras

    return torch.tensor(np.asarray(keras.ops.convert_to_numpy(variable)).astype(np.float32))


def parameter(tensor: torch.Tensor) -> nn.Parameter:
    """Returns a tensor as a parameter."""
    return nn.Parameter(tensor.contiguous().clone())


def no_form(call: Call, why: str) -> PenjingError:
    """Returns the error for a layer that can't be expressed: `why` says what about it."""
    return PenjingError(
        f"The layer '{call.path}' ({type(call.layer).__name__}) can't be read: {why}. Give a model that ends before it, "
        f"keras.Model(model.inputs, model.get_layer(…).output), or build the network without it."
    )


def refuse(call: Call, **plain: Any) -> None:
    """Raises where a layer has a setting other than the plain one.

    Raises:
        PenjingError: names the setting.
    """
    for name, value in plain.items():
        found = getattr(call.layer, name, value)
        if found != value and not (isinstance(found, Sequence) and list(found) == value):
            raise no_form(call, f"it has {name}={found!r}, and only {value!r} has a form")
