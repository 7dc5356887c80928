"""The torch module that computes what an ONNX file does: its layers under readable names, called in the file's order."""

import inspect
import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from penjing.importing.onnx.values import as_tensor, is_sizes


class Operation(nn.Module):
    """An op without weights; a module, so that a captured graph knows its name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self._function(*arguments)


@dataclass(frozen=True)
class Flowing:
    """A value that an earlier step or the caller gives.

    Attributes:
        name: in the file.
        tensor: whether it is wanted as a tensor; else sizes stay arrays.
    """

    name: str
    tensor: bool


@dataclass(frozen=True)
class Held:
    """A parameter or buffer of the module, by its path."""

    path: str


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        path: of the module to call.
        arguments: `Flowing`, `Held`, or plain values.
        outputs: the names of what it gives; "" for what nobody wants.
    """

    path: str
    arguments: tuple[Any, ...]
    outputs: tuple[str, ...]


class FromOnnx(nn.Module):
    """A network that was read from an ONNX file. Its layers are PyTorch's own; `forward` calls them in the file's order.

    Attributes:
        parameter_names: the names of `forward`'s parameters, by the names of the file's inputs.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        super().__init__()
        self._inputs = tuple(inputs)
        self.parameter_names = {name: _identifier(name, index) for index, name in enumerate(inputs)}
        self._steps: list[Step] = []
        self._outputs: tuple[str, ...] = ()
        self._last_use: dict[str, int] = {}

    def finish(self, steps: Sequence[Step], outputs: Sequence[str]) -> None:
        """Sets what is called, in order, and the names of what comes out."""
        self._steps, self._outputs = list(steps), tuple(outputs)

        def forward(*args: Tensor, **kwargs: Tensor) -> Any:
            return self._run(signature.bind(*args, **kwargs).args)

        parameters = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in self.parameter_names.values()
        ]
        signature = inspect.Signature(parameters)
        forward.__signature__ = signature  # type: ignore[attr-defined]
        self.forward = forward  # so that a captured graph has the file's names for its inputs
        self._last_use = {
            one.name: index for index, step in enumerate(steps) for one in step.arguments if isinstance(one, Flowing)
        }

    def _run(self, inputs: Sequence[Tensor]) -> Any:
        """Returns the output, or a tuple of several."""
        values: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        for index, step in enumerate(self._steps):
            arguments = [self.fetch(one, values) for one in step.arguments]
            made = self.get_submodule(step.path)(*arguments)
            made = made if isinstance(made, tuple) else (made,)
            values.update(zip(step.outputs, made, strict=False))
            for one in step.arguments:
                if isinstance(one, Flowing) and self._last_use[one.name] == index and one.name not in self._outputs:
                    values.pop(one.name, None)
        outputs = tuple(as_tensor(values[name]) for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def fetch(self, argument: Any, values: dict[str, Any]) -> Any:
        """Returns the value of a step's argument."""
        if isinstance(argument, Flowing):
            value = values[argument.name]
            return as_tensor(value) if argument.tensor and is_sizes(value) else value
        if isinstance(argument, Held):
            owner, _, name = argument.path.rpartition(".")
            return getattr(self.get_submodule(owner), name)
        return argument


def _identifier(name: str, index: int) -> str:
    clean = re.sub(r"\W", "_", name, flags=re.ASCII)
    return clean if clean.isidentifier() and not keyword.iskeyword(clean) else f"input_{index}"
