"""The one representation: a trainable module around a functional ATen graph.

Capturing lives in `capture/`, channels in `channels/`, changing in `edit/`, files in `penjing.storage`; here is only what a
graph *is*.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError, unknown_name
from penjing.graph import cost, modes, propagation
from penjing.graph.capture.constants import Folded
from penjing.graph.capture.parts import CapturedPart
from penjing.graph.inputs import Input, Signature
from penjing.graph.places import Architecture, Plan


class Graph(nn.Module):
    """A model as a graph of ATen ops, with the parameter names of the user's model.

    It is an ordinary `nn.Module`: call it as the model was called, train it, move it, copy it, compile it.

    Attributes:
        program: the `torch.fx.GraphModule` with flat tensor inputs and a flat tuple of outputs. It shares this
            module's parameters. After editing `program.graph`, call `refresh()`.
        signature: how calls map to the flat inputs.
        out_spec: pytree of the outputs.
        batch: the batch size if the model truly fixes it, else None.
        masks: boolean masks of unstructured pruning by parameter name; False is pruned. Not part of `state_dict()`.
        lost_in_training: what the model did only while training and this graph can't do.
        name: what the model is called in reports.
        plan: what was done to the graph so far, and the architecture that it had before.
        part: how the part of a model that this is a graph of is called, or None for a whole model.
        folded: the weights that the model computes from its parameters, and from which ones, by name.
    """

    program: fx.GraphModule
    takes_mapping = True  # as its only argument, with the inputs by name

    def __init__(
        self,
        nodes: fx.Graph,
        tensors: Mapping[str, Tensor],
        signature: Signature,
        out_spec: pytree.TreeSpec,
        *,
        batch: int | None = None,
        transient: Iterable[str] = (),
        lost_in_training: Iterable[str] = (),
        name: str = "model",
        folded: Mapping[str, Folded] | None = None,
    ) -> None:
        super().__init__()
        self.signature = signature
        self.out_spec = out_spec
        self.batch = batch
        self.lost_in_training = tuple(lost_in_training)
        self.name = name
        self.masks: dict[str, Tensor] = {}
        self.plan = Plan(architecture=Architecture.of(name, tensors))
        self.part: CapturedPart | None = None
        self.folded = dict(folded or {})
        transient = frozenset(transient)
        for path, tensor in tensors.items():
            self.set_tensor(path, tensor, persistent=path not in transient)
        self._adopt(nodes)
        self.training = False

    def _adopt(self, nodes: fx.Graph) -> None:
        """Makes `nodes` this module's program. The program holds the very same parameter tables, so nothing can drift."""
        program = fx.GraphModule(nn.Module(), fx.Graph())
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            program.__dict__[table] = self.__dict__[table]
        nodes.set_codegen(CodeGen())
        program.graph = nodes
        # Not registered as a child: the parameters would be listed twice, once with a prefix.
        self.__dict__["program"] = program

    # Running

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the graph on inputs nested as in the user's model.

        Raises:
            PenjingError: an input has another nesting, shape or dtype than the captured one.
        """
        outputs = self.program(*self.signature.flatten(args, kwargs))
        return pytree.tree_unflatten(list(outputs), self.out_spec)

    def train(self, mode: bool = True) -> "Graph":
        """Sets training or evaluation mode: batch norm, dropout, recurrent dropout, straight-through quantisers."""
        super().train(mode)
        modes.set_mode(self.program.graph, mode)
        self.program.recompile()
        return self

    def with_outputs(self, names: Iterable[str]) -> "Graph":
        """Returns a graph that shares this one's parameters and returns `(outputs, {name: tensor})`.

        Args:
            names: names of nodes, as in `graph.program.graph` and in the rows of `graph.cost()`.

        Raises:
            PenjingError: there is no node of that name.
        """
        names = list(names)
        nodes = copy.deepcopy(self.program.graph)
        by_name = {node.name: node for node in nodes.nodes}
        for name in names:
            if name not in by_name:
                raise unknown_name("node", name, by_name)
        output: Any = nodes.output_node()
        output.args = ((*output.args[0], *(by_name[name] for name in names)),)
        tapped = Graph(nodes, {}, self.signature, _with_taps(self.out_spec, names), batch=self.batch, name=self.name)
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            tapped.__dict__[table] = tapped.program.__dict__[table] = self.__dict__[table]
        tapped.training, tapped.plan = self.training, self.plan
        return tapped

    # Inputs

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The flat tensor inputs."""
        return self.signature.inputs

    @property
    def input_names(self) -> list[str]:
        """The names of the flat tensor inputs."""
        return [given.name for given in self.inputs]

    def example_inputs(self, batch: int | None = None, seed: int = 0) -> tuple[Tensor, ...]:
        """Returns flat random inputs of the captured shapes, with `batch` as batch size where that is free."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(given.example(batch, 0, generator) for given in self.inputs)

    def example_call(self, batch: int | None = None, seed: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns `(args, kwargs)` for calling the graph as the user's model was called, with random tensors."""
        tensors = iter(self.example_inputs(batch, seed))
        leaves = [next(tensors) if isinstance(leaf, Input) else leaf for leaf in self.signature.leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self.signature.spec)
        return args, kwargs

    # Tensors

    def tensor(self, path: str) -> Tensor:
        """Returns the parameter, buffer or constant of that dotted name."""
        *parents, leaf = path.split(".")
        module: nn.Module = self
        for name in parents:
            module = module._modules[name]  # type: ignore[assignment]
        found: Tensor | None = module._parameters.get(leaf)
        found = module._buffers.get(leaf) if found is None else found
        if found is None:
            raise KeyError(path)
        return found

    def set_tensor(self, path: str, tensor: Tensor, persistent: bool = True) -> None:
        """Registers or replaces the parameter or buffer of that dotted name."""
        *parents, leaf = path.split(".")
        module: nn.Module = self
        for name in parents:
            if name not in module._modules:
                module._modules[name] = nn.Module()
            module = module._modules[name]  # type: ignore[assignment]
        module._non_persistent_buffers_set.discard(leaf)
        if isinstance(tensor, nn.Parameter):  # assigned without a pop, so that the order of the state dict stays
            module._buffers.pop(leaf, None)
            module._parameters[leaf] = tensor
        else:
            module._parameters.pop(leaf, None)
            module._buffers[leaf] = tensor
            if not persistent:
                module._non_persistent_buffers_set.add(leaf)

    def drop_tensor(self, path: str) -> None:
        """Forgets the parameter or buffer of that dotted name."""
        *parents, leaf = path.split(".")
        module: nn.Module = self
        for name in parents:
            module = module._modules[name]  # type: ignore[assignment]
        module._parameters.pop(leaf, None)
        module._buffers.pop(leaf, None)
        module._non_persistent_buffers_set.discard(leaf)

    def tensors(self) -> dict[str, Tensor]:
        """Returns every parameter and buffer by name; tied ones are the same object under each of their names."""
        return {
            **dict(self.named_parameters(remove_duplicate=False)),
            **dict(self.named_buffers(remove_duplicate=False)),
        }

    @property
    def architecture(self) -> Architecture:
        """What tells it from graphs with other parameters, as it is now; `plan.architecture` is what it was captured with."""
        return Architecture.of(self.name, self.tensors())

    def transient(self) -> frozenset[str]:
        """The names of buffers that are no part of the model's state: constants and non-persistent buffers."""
        return frozenset(dict(self.named_buffers(remove_duplicate=False))) - frozenset(self.state_dict(keep_vars=True))

    def ties(self) -> dict[str, str]:
        """Returns, for each tied parameter, the first name under which the same parameter is known."""
        first: dict[int, str] = {}
        return {
            path: first[id(tensor)]
            for path, tensor in self.tensors().items()
            if first.setdefault(id(tensor), path) != path
        }

    def apply_masks(self) -> None:
        """Sets every masked weight to zero; called after each optimiser step."""
        with torch.no_grad():
            for path, mask in self.masks.items():
                # Not by multiplying: that leaves -0.0 for negative weights, which a compact file stores, and NaN for NaN.
                self.tensor(path).masked_fill_(~mask, 0)

    # Keeping consistent

    def refresh(self, *, shapes_known: bool = False, watch: "propagation.Watch | None" = None) -> "Graph":
        """Brings the graph back in order after its nodes or tensors were edited: removes dead nodes and the tensors that
        only they used, propagates shapes, compiles the code anew. Returns the graph itself.

        Args:
            shapes_known: the edit kept `meta["val"]` of every node right, which is then only checked.
            watch: sees every call while shapes are propagated, and may refuse it.
        """
        used_before = _fetched(self.program.graph)
        self.program.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        for path in used_before - _fetched(self.program.graph):
            self.drop_tensor(path)
        if not (shapes_known and propagation.confirms(self)):
            propagation.propagate(self, watch)
        self.program.graph.lint()
        self.program.recompile()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Graph":
        tensors = copy.deepcopy(self.tensors(), memo)
        other = Graph(
            copy.deepcopy(self.program.graph),
            tensors,
            self.signature,
            self.out_spec,
            batch=self.batch,
            transient=self.transient(),
            lost_in_training=self.lost_in_training,
            name=self.name,
            folded=self.folded,
        )
        other.masks = copy.deepcopy(self.masks, memo)
        other.plan = self.plan
        other.part = self.part
        other.training = self.training
        return other

    def _apply(self, fn: Any, recurse: bool = True) -> "Graph":
        before = self._float_dtype()
        super()._apply(fn, recurse)
        self.masks = {path: fn(mask) for path, mask in self.masks.items()}
        self._move_factories(next((t.device for t in self.tensors().values()), None), before, self._float_dtype())
        return self

    def _float_dtype(self) -> torch.dtype | None:
        return next((p.dtype for p in self.parameters() if p.dtype.is_floating_point), None)

    def _move_factories(self, device: torch.device | None, before: torch.dtype | None, now: torch.dtype | None) -> None:
        """Points ops that make tensors (the zero state of an LSTM) to the parameters' device and dtype."""
        changed = False
        for node in self.program.graph.nodes:
            if device is not None and node.kwargs.get("device") not in (None, device):
                node.update_kwarg("device", device)
                changed = True
            makes = node.kwargs.get("device") is not None and not any(
                isinstance(n.meta.get("val"), Tensor) for n in node.all_input_nodes
            )
            if makes and before != now and before is not None and node.kwargs.get("dtype") == before:
                node.update_kwarg("dtype", now)
                changed = True
        if changed:
            self.program.recompile()

    # Looking at it

    def cost(self) -> "cost.Cost":
        """Returns MACs, parameters, weight bytes and activation bytes at batch 1, per node and summed."""
        return cost.count(self)

    def save(self, path: Any, *, compact: bool = False) -> None:
        """Writes the graph as a `.penjing` file, which `penjing.load` reads without the model's class and without pickle.

        Args:
            path: the file.
            compact: entropy-code it: small where weights are zero, shared or of few bits. It loads to the same bits; float
                weights behind quantisers are stored as integers where they equal them, as after `rounded()`.
        """
        from penjing import storage  # it needs Graph to build what it loads

        storage.save(self, path, compact=compact)

    def rounded(self) -> "Graph":
        """Returns a copy whose weights equal what their quantisers make of them, for `save(…, compact=True)`.

        It computes the same; only the remainders that further training would use are gone.
        """
        from penjing.graph.edit import rounding  # rounding copies a Graph

        return rounding.rounded(self)

    def write_into(self, model: nn.Module, part: str | nn.Module | None = None) -> nn.Module:
        """Writes this graph's tensors and sizes into `model`, the user's own module; see `write_back.write_into`.

        Raises:
            PenjingError: the model can't hold the graph, or would compute something else; it is then as it was.
        """
        from penjing.graph.user_model import write_back  # write_back needs capture, which needs Graph

        return write_back.write_into(self, model, part)

    def extra_repr(self) -> str:
        """Inputs, size and mode in one line."""
        shapes = ", ".join(f"{given.name}{list(given.shape)}" for given in self.inputs)
        return f"{self.name}({shapes}), {len(self.program.graph.nodes)} nodes"

    def __repr__(self) -> str:
        return f"Graph({self.extra_repr()})"


def _fetched(nodes: fx.Graph) -> set[str]:
    return {str(node.target) for node in nodes.nodes if node.op == "get_attr"}


def _with_taps(out_spec: pytree.TreeSpec, names: list[str]) -> pytree.TreeSpec:
    outputs = pytree.tree_unflatten([0] * out_spec.num_leaves, out_spec)
    spec = pytree.tree_structure((outputs, dict.fromkeys(names, 0)))
    if spec.num_leaves != out_spec.num_leaves + len(names):
        raise PenjingError("The names of inner values must differ from one another.")
    return spec
