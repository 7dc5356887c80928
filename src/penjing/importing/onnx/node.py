"""One node of an ONNX graph as the ops' forms see it, and what a form gives back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.errors import PenjingError
from penjing.importing.onnx.values import is_constant, is_sizes, numbers


@dataclass(frozen=True)
class Given:
    """An input of a node, to be fetched when the network runs.

    Attributes:
        position: among the node's inputs.
        tensor: whether it is wanted as a tensor; else constants and sizes stay arrays.
        number: whether a constant of one entry may be a plain number instead.
    """

    position: int
    tensor: bool
    number: bool = False


@dataclass(frozen=True)
class Form:
    """How a node is computed in PyTorch.

    Attributes:
        call: a layer, or a function.
        arguments: what it is called with: `Given` inputs, and plain values.
        owner: the input whose name tells the layer's, such as "layer1.0.conv1.weight"; None for functions.
    """

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    owner: int | None = None


@dataclass(frozen=True)
class Node:
    """A node with the values that its inputs have for the example.

    Attributes:
        name: the node's name in the file, or what stands for it.
        scope: where the node comes from, as its name or its exporter tells; may be empty.
        op: the op's type.
        names: of the inputs; "" for one that isn't given.
        inputs: their values; None for one that isn't given.
        outputs: names of the outputs; "" for one that nobody wants.
        attributes: plain values; texts as `str`.
        opset: the version of ONNX's ops.
        frees_batch: whether the file fixes its batch to 1 and the module is to take any: constant shapes that begin with 1
            then begin with the batch.
        share: returns one parameter for each key, so that weights which the file shares are tied.
    """

    name: str
    scope: str
    op: str
    names: tuple[str, ...]
    inputs: tuple[Any, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    frees_batch: bool
    share: Callable[[Any, Callable[[], torch.Tensor]], nn.Parameter]

    def has(self, position: int) -> bool:
        """Tells whether an input is given."""
        return position < len(self.inputs) and self.inputs[position] is not None

    def tensor(self, position: int) -> Given:
        """Returns an input, to be fetched as a tensor."""
        return Given(position, True)

    def tensors(self) -> tuple[Given, ...]:
        """Returns all inputs, to be fetched as tensors."""
        return tuple(Given(position, True) for position in range(len(self.inputs)))

    def operands(self) -> tuple[Given, ...]:
        """Returns all inputs as tensors, or as numbers where that is all that they hold."""
        return tuple(Given(position, True, True) for position in range(len(self.inputs)))

    def raw(self, position: int) -> Given | None:
        """Returns an input, to be fetched as it is: a tensor, a constant or sizes; None where it isn't given."""
        return Given(position, False) if self.has(position) else None

    def constant(self, position: int) -> np.ndarray | None:
        """Returns an input's value where it is the same in every call, else None."""
        value = self.inputs[position] if self.has(position) else None
        return value if is_constant(value) else None

    def wanted_constant(self, position: int) -> np.ndarray:
        """Returns an input's value, which must be the same in every call.

        Raises:
            PenjingError: it depends on the network's inputs.
        """
        value = self.constant(position)
        if value is None:
            raise no_form(self, f"its input '{self.names[position]}' is computed while the network runs")
        return value

    def attribute(self, name: str, default: Any = None) -> Any:
        """Returns an attribute."""
        return self.attributes.get(name, default)

    def setting(self, name: str, position: int, default: Any = None) -> list[Any] | Any:
        """Returns numbers that older opsets keep in an attribute, and newer ones in an input that is constant or a size."""
        if name in self.attributes:
            value = self.attributes[name]
            return list(value) if isinstance(value, Sequence) else [value]
        if not self.has(position):
            return default
        value = self.inputs[position]
        return numbers(value) if is_sizes(value) else numbers(self.wanted_constant(position))

    def rank(self, position: int = 0) -> int:
        """Returns how many axes an input has."""
        return int(self.inputs[position].ndim)

    def function(self, call: Callable[..., Any], *arguments: Any) -> Form:
        """Returns the form of a function of these arguments; without any, of all inputs."""
        return Form(call, arguments or self.tensors())

    def layer(self, module: nn.Module, owner: int = 1) -> Form:
        """Returns the form of a layer over the first input."""
        return Form(module, (self.tensor(0),), owner)


def no_form(node: Node, why: str) -> PenjingError:
    """Returns the error for a node that can't be expressed in PyTorch: `why` says what about it."""
    return PenjingError(
        f"The op {node.op} (node '{node.name}') can't be read: {why}. Leave it out by naming values before it, "
        f"from_onnx(…, outputs=[{', '.join(repr(name) for name in node.names if name)}]), or export the network without it."
    )
