"""A network that was read from elsewhere, as a torch module: its layers under readable names, called in their order."""

import inspect
import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from penjing.errors import PenjingError


class Operation(nn.Module):
    """An op without weights; a module, so that a captured graph knows its name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self._function(*arguments)


class Padded(nn.Module):
    """A layer behind a padding that it can't do itself: of other widths at both ends, or by the input's size.

    In a network the two are calls of their own, so that the layer has the name and the padding doesn't stand around it.
    """

    def __init__(self, layer: nn.Module, pad: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.pad = layer, pad

    def forward(self, x: Tensor) -> Tensor:
        """Pads and calls the layer."""
        made: Tensor = self.layer(self.pad(x))
        return made


@dataclass(frozen=True)
class Flowing:
    """A value that an earlier step or the caller gives.

    Attributes:
        name: of the value.
        tensor: whether it is wanted as a tensor, where a source knows other values too.
    """

    name: str
    tensor: bool = True


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        path: of the module to call.
        arguments: `Flowing`, or plain values.
        outputs: the names of what it gives; "" for what nobody wants.
    """

    path: str
    arguments: tuple[Any, ...]
    outputs: tuple[str, ...]


class Network(nn.Module):
    """A network that was read from elsewhere. Its layers are PyTorch's own; `forward` calls them in order.

    Attributes:
        parameter_names: the names of `forward`'s parameters, by the names of the network's inputs.
        batch: how many samples a call takes; None where any number.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        super().__init__()
        self._inputs = tuple(inputs)
        self.parameter_names = {name: _identifier(name, index) for index, name in enumerate(inputs)}
        self._steps: list[Step] = []
        self._outputs: tuple[str, ...] = ()
        self._last_use: dict[str, int] = {}
        self.batch: int | None = None

    def finish(self, steps: Sequence[Step], outputs: Sequence[str]) -> None:
        """Sets what is called, in order, and the names of what comes out."""
        self._steps, self._outputs = list(steps), tuple(outputs)
        self._last_use = {
            one.name: index for index, step in enumerate(steps) for one in step.arguments if isinstance(one, Flowing)
        }

    @property
    def forward(self) -> Callable[..., Any]:  # type: ignore[override]
        """The call, with the source's names for its parameters, which a captured graph then has for its inputs."""
        signature = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in self.parameter_names.values()]
        )

        def call(*args: Tensor, **kwargs: Tensor) -> Any:
            return self._run(signature.bind(*args, **kwargs).args)

        call.__signature__ = signature  # type: ignore[attr-defined]
        return call

    def _run(self, inputs: Sequence[Tensor]) -> Any:
        """Returns the output, or a tuple of several.

        Raises:
            PenjingError: the network takes another number of samples.
        """
        if self.batch is not None and any(len(one) != self.batch for one in inputs if one.ndim):
            raise PenjingError(
                f"The network takes {self.batch} sample(s) at a time alone, as the file that it came from."
            )
        values: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        for index, step in enumerate(self._steps):
            arguments = [self.fetch(one, values) for one in step.arguments]
            made = self.get_submodule(step.path)(*arguments)
            made = made if isinstance(made, tuple) else (made,)
            values.update(zip(step.outputs, made, strict=False))
            for one in step.arguments:
                if isinstance(one, Flowing) and self._last_use[one.name] == index and one.name not in self._outputs:
                    values.pop(one.name, None)
        outputs = tuple(self.fetch(Flowing(name), values) for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def fetch(self, argument: Any, values: dict[str, Any]) -> Any:
        """Returns the value of a step's argument."""
        return values[argument.name] if isinstance(argument, Flowing) else argument


def _identifier(name: str, index: int) -> str:
    clean = re.sub(r"\W", "_", name, flags=re.ASCII)
    return clean if clean.isidentifier() and not keyword.iskeyword(clean) else f"input_{index}"


def clean_path(parts: Sequence[str]) -> str:
    """Returns a module path of any texts; "" where none has a letter."""
    return ".".join(clean for part in parts if (clean := re.sub(r"\W", "_", part, flags=re.ASCII)))


def container(root: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Returns the module that is to hold `path`, made where it isn't there, and a free name in it."""
    *parents, last = path.split(".")
    here = root
    for part in parents:
        while part in here._modules and not _holds_others(here._modules[part]):
            part += "_"
        part = part if part in here._modules else _free(here, part)
        if part not in here._modules:
            here.add_module(part, nn.Module())
        child = here._modules[part]
        assert child is not None
        here = child
    return here, _free(here, last)


def _holds_others(module: nn.Module | None) -> bool:
    return type(module) is nn.Module


def _free(module: nn.Module, name: str) -> str:
    """Returns the name, longer where the module has it already."""
    stem, number = name, 1
    while hasattr(module, name):
        number += 1
        name = f"{stem}_{number}"
    return name


def path_in(root: nn.Module, module: nn.Module) -> str:
    """Returns a module's path."""
    return next(path for path, one in root.named_modules() if one is module)
