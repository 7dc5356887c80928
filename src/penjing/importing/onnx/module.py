"""The torch module that computes what an ONNX file does; between its layers flow sizes beside tensors."""

from dataclasses import dataclass
from typing import Any

from penjing.importing.network import Flowing, Network
from penjing.importing.onnx.values import as_tensor, is_sizes


@dataclass(frozen=True)
class Held:
    """A parameter or buffer of the module, by its path."""

    path: str


class FromOnnx(Network):
    """A network that was read from an ONNX file."""

    def fetch(self, argument: Any, values: dict[str, Any]) -> Any:
        """Returns the value of a step's argument: sizes as a tensor where one is wanted, and what the module holds."""
        if isinstance(argument, Flowing):
            value = values[argument.name]
            return as_tensor(value) if argument.tensor and is_sizes(value) else value
        if isinstance(argument, Held):
            owner, _, name = argument.path.rpartition(".")
            return getattr(self.get_submodule(owner), name)
        return argument
