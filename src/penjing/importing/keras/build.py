"""Builds the torch module of a Keras model: follows its layers from the outputs back, and gives each call its form."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from penjing.errors import PenjingError
from penjing.importing.keras.layers import FORMS
from penjing.importing.keras.layers.activations import activation
from penjing.importing.keras.layout import IMAGE, to_first, to_last
from penjing.importing.keras.table import Call, no_form
from penjing.importing.network import Flowing, Network, Operation, Padded, Step, clean_path, container, path_in

PASSING = {"Dropout", "Identity", "GaussianDropout", "GaussianNoise", "ActivityRegularization"}  # entry by entry


def build(model: Any, channels_first: bool) -> Network:
    """Returns the module of a Functional or Sequential model.

    Args:
        model: the model.
        channels_first: whether images come in and go out with their channels first, not last as in Keras.

    Raises:
        PenjingError: a layer has no form.
    """
    return _Builder(model, channels_first).network


class _Builder:
    """What is known while the layers are followed. A value is known by the id of Keras' symbolic tensor."""

    def __init__(self, model: Any, channels_first: bool) -> None:
        self._steps: list[Step] = []
        self._names: dict[int, str] = {}
        self._flattened: dict[str, tuple[int, int, int]] = {}
        self._modules: dict[int, list[str]] = {}  # the paths of each layer with weights, by its id
        self._count = 0
        self.network = Network([_name(tensor, index) for index, tensor in enumerate(model.inputs)])
        values = {}
        for name, tensor in zip(self.network.parameter_names, model.inputs, strict=True):
            turned = len(tensor.shape) == IMAGE and not channels_first
            values[id(tensor)] = self._step("channels_first", Operation(to_first), (Flowing(name),)) if turned else name
        made = self._walk(model, values, ())
        for place, (name, tensor) in enumerate(zip(made, model.outputs, strict=True)):
            if len(tensor.shape) == IMAGE and not channels_first:
                made[place] = self._step("channels_last", Operation(to_last), (Flowing(name),))
        self.network.finish(self._steps, made)
        self.network.eval()

    def _walk(self, model: Any, known: Mapping[int, str], path: tuple[str, ...]) -> list[str]:
        """Adds the steps of a model whose inputs' values are known; returns the names of its outputs' values."""
        names = dict(known)
        readers = _readers(model)
        waiting = list(reversed(model.outputs))
        while waiting:
            tensor = waiting[-1]
            if id(tensor) in names:
                waiting.pop()
                continue
            operation, index, _ = tensor._keras_history
            if type(operation).__name__ == "InputLayer":
                raise PenjingError(f"The layer '{operation.name}' is no input of the model '{model.name}'.")
            node = operation._inbound_nodes[index]
            missing = [one for one in node.input_tensors if id(one) not in names]
            if missing:
                waiting += reversed(missing)
                continue
            waiting.pop()
            given = [names[id(one)] for one in node.input_tensors]
            outputs = self._call(operation, node, given, path, readers)
            for one, name in zip(node.outputs, outputs, strict=True):
                names[id(one)] = name
        return [names[id(tensor)] for tensor in model.outputs]

    def _call(
        self, operation: Any, node: Any, given: list[str], path: tuple[str, ...], readers: Mapping[int, list[Any]]
    ) -> list[str]:
        if hasattr(operation, "layers") and hasattr(operation, "inputs"):
            inner = {id(tensor): name for tensor, name in zip(operation.inputs, given, strict=True)}
            return self._walk(operation, inner, (*path, operation.name))
        shapes = tuple(tuple(one.shape) for one in node.input_tensors)
        kind = type(operation).__name__
        call = Call(
            operation, ".".join((*path, operation.name)), shapes, self._flattened.get(given[0]) if given else None
        )
        if kind not in FORMS:
            raise no_form(call, "there is no form for it in penjing.importing.keras.layers")
        if kind == "Flatten" and len(shapes[0]) == IMAGE and None not in shapes[0][1:]:
            (output,) = node.outputs
            if _feeds_dense(output, readers):
                call = Call(operation, call.path, shapes, shapes[0][1:])  # type: ignore[arg-type]
        name = self._layer(call, self._arguments(node, given))
        if call.flattened is not None and (kind == "Flatten" or kind in PASSING):
            self._flattened[name] = call.flattened
        return [name] + [f"{name}.{number}" for number in range(1, len(node.outputs))]

    def _layer(self, call: Call, arguments: tuple[Any, ...]) -> str:
        """Adds the step of a layer, and of its activation."""
        known, before = self._modules.get(id(call.layer)), len(self._steps)
        if known is None:
            made = FORMS[type(call.layer).__name__](call)
            module = made if isinstance(made, nn.Module) else Operation(made)
            if isinstance(module, Padded):
                padded = self._step(f"{call.path}_pad", Operation(module.pad), arguments)
                module, arguments = module.layer, (Flowing(padded),)
            name = self._step(call.path, module, arguments)
            if any(True for _ in module.parameters()):
                self._modules[id(call.layer)] = [step.path for step in self._steps[before:]]
        else:  # called again: the same weights
            name = ""
            for path in known:
                name = self._step(call.path, self.network.get_submodule(path), arguments, path)
                arguments = (Flowing(name),)
        function = getattr(call.layer, "activation", None)
        if type(call.layer).__name__ in ("Activation", "LSTM", "GRU") or function is None:
            return name
        rank = len(call.shapes[0])
        applied = activation(call, function, rank)
        return name if applied is None else self._step(f"{call.path}_activation", Operation(applied), (Flowing(name),))

    def _arguments(self, node: Any, given: list[str]) -> tuple[Any, ...]:
        """Returns the values of a call in order: what flows, and the numbers between of arithmetic."""
        flowing = iter(given)
        found: list[Any] = []
        for one in node.arguments.args:
            several = one if isinstance(one, list | tuple) else [one]
            for each in several:
                if hasattr(each, "_keras_history"):
                    found.append(Flowing(next(flowing)))
                elif isinstance(each, int | float):
                    found.append(each)
        return (*found, *(Flowing(name) for name in flowing))

    def _step(self, path: str, module: nn.Module, arguments: tuple[Any, ...], known: str | None = None) -> str:
        self._count += 1
        name = f"value {self._count}"
        if known is None:
            parent, free = container(self.network, clean_path(path.split(".")) or f"layer_{self._count}")
            parent.add_module(free, module)
            known = path_in(self.network, module)
        self._steps.append(Step(known, arguments, (name,)))
        return name


def _name(tensor: Any, index: int) -> str:
    """Returns an input's name, which is that of its layer where the user gave it one."""
    history = getattr(tensor, "_keras_history", None)
    name = getattr(history.operation, "name", "") if history is not None else ""
    return name or f"input_{index}"


def _readers(model: Any) -> dict[int, list[Any]]:
    """Returns the nodes that read each tensor of a model, and None for each output, by the tensor's id."""
    found: dict[int, list[Any]] = {}
    for operation in model.operations if hasattr(model, "operations") else model.layers:
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                found.setdefault(id(tensor), []).append(node)
    for tensor in model.outputs:
        found.setdefault(id(tensor), []).append(None)
    return found


def _feeds_dense(tensor: Any, readers: Mapping[int, list[Any]]) -> bool:
    """Tells whether only dense layers read a tensor, directly or through layers that keep its order."""
    nodes = readers.get(id(tensor), [])
    for node in nodes:
        kind = None if node is None else type(node.operation).__name__
        if kind not in {"Dense", *PASSING}:
            return False
        if kind in PASSING and not _feeds_dense(node.outputs[0], readers):
            return False
    return bool(nodes)
