"""Builds the torch module of an ONNX graph: runs through it once with an example and gives each node its form.

Nodes that read constants alone are computed here, once; nodes between Shape and Reshape compute with sizes in Python.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from penjing.damage import refusing
from penjing.errors import PenjingError, unknown_name
from penjing.importing.network import Flowing, Operation, Padded, Step, container, path_in
from penjing.importing.onnx import names
from penjing.importing.onnx.file import DOMAINS, OnnxFile, array
from penjing.importing.onnx.module import FromOnnx, Held
from penjing.importing.onnx.node import Form, Given, Node, no_form
from penjing.importing.onnx.ops import FORMS, SIZES
from penjing.importing.onnx.values import as_tensor, is_constant, is_sizes

MOST_MADE = 2**28  # entries that a node makes of the example or of constants: 1 GiB in float32


def build(
    file: OnnxFile, inputs: Sequence[str], example: Sequence[Tensor], outputs: Sequence[str], *, frees_batch: bool
) -> FromOnnx:
    """Returns the module.

    Args:
        file: the file.
        inputs: names of what the module is called with.
        example: a value for each.
        outputs: names of the values to return; any in the file.
        frees_batch: whether the file fixes its batch to 1, and the module is to take any.

    Raises:
        PenjingError: an op has no form, or fails on the example.
    """
    builder = _Builder(file, inputs, example, outputs, frees_batch)
    known = {name for node in file.graph.node for name in node.output if name} | {*inputs}
    for name in outputs:
        if name not in known:
            raise unknown_name(f"value in {file.path}", name, known)
    with torch.no_grad():
        builder.add(_needed(file.graph.node, outputs))
    return builder.finish(outputs)


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """Returns the nodes on which the outputs depend, in the file's order."""
    wanted = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if wanted & {*node.output}:
            kept.append(node)
            wanted |= _read(node)
    return kept[::-1]


def _read(node: onnx.NodeProto) -> set[str]:
    """Returns the names of the values that a node reads, those of its branches too."""
    found = {*node.input}
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found |= {name for inner in attribute.g.node for name in _read(inner)}
            found |= {value.name for value in attribute.g.output}
    return found


def _entries_made(operation: Operation, given: Sequence[Any]) -> int:
    """Returns how many entries an op makes, without making them; 0 where that hangs on values, which are there already."""
    try:
        made = operation(*(torch.empty_like(one, device="meta") if isinstance(one, Tensor) else one for one in given))
    except Exception:  # an op that reads values can't be tried so
        return 0
    return sum(one.numel() for one in (made if isinstance(made, tuple) else (made,)) if isinstance(one, Tensor))


class _Builder:
    """What is known while a graph is walked."""

    def __init__(
        self,
        file: OnnxFile,
        inputs: Sequence[str],
        example: Sequence[Tensor],
        outputs: Sequence[str],
        frees_batch: bool,
    ) -> None:
        self._file, self._frees_batch = file, frees_batch
        self._values: dict[str, Any] = {**file.constants, **dict(zip(inputs, example, strict=True))}
        self._stored = set(file.constants)
        self._alias: dict[str, str] = {}
        self._module = FromOnnx(inputs)
        self._steps: list[Step] = []
        self._shared: dict[Any, nn.Parameter] = {}
        self._held: dict[str, str] = {}
        self._makers: dict[str, Step] = {}
        self._uses: Counter[str] = Counter(name for node in file.graph.node for name in _read(node))
        self._uses.update(value.name for value in file.graph.output)
        self._uses.update(outputs)
        self._index = 0

    def finish(self, outputs: Sequence[str]) -> FromOnnx:
        """Returns the module, without what nothing needs."""
        for name in outputs:
            if is_constant(self._values[self._real(name)]):
                raise PenjingError(f"{self._file.path}: the output '{name}' is a constant, which no input changes.")
        wanted = {self._real(name) for name in outputs}
        steps = []
        for step in reversed(self._steps):
            if wanted & {*step.outputs}:
                steps.append(step)
                wanted |= {one.name for one in step.arguments if isinstance(one, Flowing)}
        self._module.finish(steps[::-1], [self._real(name) for name in outputs])
        return self._module.eval()

    def add(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Adds the steps of these nodes."""
        for proto in nodes:
            self._index += 1
            with refusing(f"{self._file.path}: node '{proto.name}' ({proto.op_type}) can't be read"):
                self._add(proto)

    def _add(self, proto: onnx.NodeProto) -> None:
        if proto.op_type == "Constant" and proto.domain in DOMAINS:
            self._values[proto.output[0]] = self._constant(proto)
            self._stored.add(proto.output[0])
        elif proto.op_type == "If":
            self._add_branch(proto)
        else:
            self._add_node(self._node(proto))

    def _real(self, name: str) -> str:
        return self._alias.get(name, name)

    def _node(self, proto: onnx.NodeProto) -> Node:
        name = proto.name or f"{proto.op_type}_{self._index}"
        for one in proto.input:
            if one and self._real(one) not in self._values:
                raise PenjingError(
                    f"{self._file.path}: node '{name}' ({proto.op_type}) reads '{one}', which nothing before it gives."
                )
        given = [self._real(one) for one in proto.input]
        while given and not given[-1]:
            given.pop()
        op = proto.op_type if proto.domain in DOMAINS else f"{proto.domain}.{proto.op_type}"
        return Node(
            name,
            names.scope_of(proto) or proto.name,
            op,
            tuple(given),
            tuple(self._values[one] if one else None for one in given),
            tuple(proto.output),
            {one.name: self._plain(one) for one in proto.attribute},
            self._file.opset,
            self._frees_batch,
            self._share,
        )

    def _plain(self, attribute: onnx.AttributeProto) -> Any:
        if attribute.type == onnx.AttributeProto.TENSOR:
            return array(self._file.path, attribute.t)
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [one.decode(errors="replace") if isinstance(one, bytes) else one for one in value]
        return value

    def _constant(self, proto: onnx.NodeProto) -> np.ndarray:
        value = self._plain(proto.attribute[0])
        if isinstance(value, np.ndarray):
            return value
        kind = {"f": np.float32, "i": np.int64}.get(proto.attribute[0].name.partition("_")[2][:1] or "")
        return np.array(value, dtype=kind)

    def _share(self, key: Any, make: Callable[[], Tensor]) -> nn.Parameter:
        if key not in self._shared:
            value = make()
            made = nn.Parameter(value, requires_grad=value.is_floating_point())
            if _is_vector(value.shape):
                return made
            self._shared[key] = made
        return self._shared[key]

    def _add_branch(self, proto: onnx.NodeProto) -> None:
        """Adds the branch that a constant condition chooses."""
        node = self._node(proto)
        condition = node.inputs[0]
        if isinstance(condition, Tensor):
            raise no_form(node, "which branch it takes depends on values")
        branch = node.attributes["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"]
        for tensor in branch.initializer:
            self._values[tensor.name] = array(self._file.path, tensor)
        self._uses.update(value.name for value in branch.output)
        self.add(branch.node)
        for outer, inner in zip(proto.output, branch.output, strict=True):
            self._alias[outer] = self._real(inner.name)

    def _add_node(self, node: Node) -> None:
        constant = all(value is None or is_constant(value) for value in node.inputs) and bool(node.inputs)
        sized = not constant and all(not isinstance(value, Tensor) for value in node.inputs)
        if self._joins_as_bias(node):
            return
        if sized and node.op in SIZES:
            call = SIZES[node.op]
            form = Form(lambda *xs: call(node, *xs), tuple(node.raw(position) for position in range(len(node.inputs))))
        elif node.op in FORMS:
            form = FORMS[node.op](node)
        else:
            raise no_form(node, "there is no form for it in penjing.importing.onnx.ops")
        self._run(node, form, constant)

    def _run(self, node: Node, form: Form, constant: bool) -> None:
        """Runs a node on the example; keeps its result as a constant, or its form as a step."""
        arguments = tuple(self._argument(node, one, constant) for one in form.arguments)
        module = form.call if isinstance(form.call, nn.Module) else Operation(form.call)
        given = tuple(self._module.fetch(one, self._example(arguments)) for one in arguments)
        if isinstance(module, Operation) and (entries := _entries_made(module, given)) > MOST_MADE:
            raise no_form(node, f"it makes {entries:,} entries, and {MOST_MADE:,} are the most")
        try:
            made = module.eval()(*given)
        except PenjingError:
            raise
        except Exception as error:
            shapes = ", ".join(str(list(value.shape)) for value in node.inputs if value is not None)
            raise PenjingError(
                f"{self._file.path}: node '{node.name}' ({node.op}) fails on inputs of the shapes {shapes}: "
                f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            ) from error
        results = made if isinstance(made, tuple) else (made,)
        if constant:
            self._keep_constants(node, results)
            return
        owner = "" if form.owner is None else node.names[form.owner]
        parent, name = container(self._module, names.path_of(node.scope, node.op, self._index, owner))
        if isinstance(module, Padded):
            parent.add_module(f"{name}_pad", pad := Operation(module.pad))
            inner = f"{node.outputs[0]} padded"
            self._steps.append(Step(path_in(self._module, pad), arguments, (inner,)))
            module, arguments = module.layer, (Flowing(inner),)
        parent.add_module(name, module)
        step = Step(path_in(self._module, module), arguments, node.outputs)
        self._steps.append(step)
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                self._values[name], self._makers[name] = value, step

    def _keep_constants(self, node: Node, results: Sequence[Any]) -> None:
        for name, value in zip(node.outputs, results, strict=False):
            plain = value.numpy() if isinstance(value, Tensor) else value
            self._values[name] = plain.astype(np.int64) if is_sizes(plain) else plain

    def _example(self, arguments: Sequence[Any]) -> dict[str, Any]:
        return {one.name: self._values[one.name] for one in arguments if isinstance(one, Flowing)}

    def _argument(self, node: Node, argument: Any, folding: bool) -> Any:
        """Returns how an argument of a form is fetched in each call."""
        if not isinstance(argument, Given):
            return argument
        if not node.has(argument.position):
            return None
        name, value = node.names[argument.position], node.inputs[argument.position]
        if not is_constant(value):
            return Flowing(name, argument.tensor)
        if not argument.tensor:
            return value
        if folding:
            return as_tensor(value)
        rank = max((one.ndim for one in node.inputs if isinstance(one, Tensor)), default=0)
        if argument.number and value.size == 1 and value.ndim <= rank:
            return value.reshape(()).item()
        return Held(self._hold(name, value))

    def _hold(self, name: str, value: np.ndarray) -> str:
        """Keeps a constant in the module and returns its path. What the file stores is a parameter, unless it is a number, a
        mask, or no float; what is computed from constants is a buffer.
        """
        key = f"{name} {self._index}" if _is_vector(value.shape) else name
        if key not in self._held:
            parent, free = container(self._module, names.path_of(name, "constant", len(self._held)))
            if name in self._stored and value.dtype.kind == "f" and value.size > 1 and np.isfinite(value).all():
                parent.register_parameter(free, self._share((name, "as it is"), lambda: torch.tensor(value)))
            else:
                parent.register_buffer(free, torch.tensor(value))
            path = next((f"{path}.{free}" for path, one in self._module.named_modules() if one is parent), free)
            self._held[key] = path.lstrip(".")
        return self._held[key]

    def _joins_as_bias(self, node: Node) -> bool:
        """Gives a constant that is added to a layer's output to the layer as its bias, where nothing else reads the output."""
        if node.op != "Add" or len(node.inputs) != 2:
            return False
        for position in (0, 1):
            value, name = node.constant(1 - position), node.names[position]
            step = self._makers.get(name)
            layer = self._module.get_submodule(step.path) if step is not None else None
            if value is None or layer is None or self._uses[name] != 1 or getattr(layer, "bias", 0) is not None:
                continue
            outputs = {nn.Linear: "out_features", nn.Conv1d: "out_channels", nn.Conv2d: "out_channels"}.get(type(layer))
            if outputs is None or value.dtype.kind != "f":
                continue
            width, axes = getattr(layer, outputs), layer.weight.ndim - 2  # type: ignore[union-attr, operator]
            if (
                value.size == width
                and value.shape[value.ndim - 1 - axes :] == (width, *(1,) * axes)
                and value.ndim <= axes + 2
            ):
                key = (node.names[1 - position], "bias")
                layer.bias = self._share(key, partial(torch.tensor, value.reshape(-1)))
                self._values[name] = self._values[name] + torch.from_numpy(np.array(value))
                self._alias[node.outputs[0]] = name
                return True
        return False


def _is_vector(shape: Sequence[int]) -> bool:
    """Tells whether only one axis is longer than 1, as of biases and scales. Exporters store equal ones once, so that two layers
    which read the same constant needn't be tied.
    """
    return sum(size > 1 for size in shape) <= 1
