"""Captures parts of a model where the whole can't be captured, as in a detector whose post-processing depends on its data.

The whole model runs once while the inputs and outputs of its parts are recorded. The record tells how to call the parts
without the code around them, and which of their outputs that code uses.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from penjing.errors import PenjingError, unknown_name

_LOOKS = frozenset(
    getattr(Tensor, name).__get__
    for name in ("shape", "device", "dtype", "ndim", "layout", "is_cuda", "requires_grad", "_version")
) | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.__len__}
"""Tensor methods and attributes that don't depend on a tensor's values."""


@dataclass(frozen=True)
class Output:
    """Stands for a tensor from an earlier call: the call's number and the tensor's place among the result's leaves."""

    call: int
    leaf: int


@dataclass(frozen=True)
class Given:
    """Stands for the n-th tensor that the parts receive from the code around them."""

    position: int


@dataclass(frozen=True)
class Call:
    """One call of a module: its path, the leaves of `(args, kwargs)` (tensors as `Output` or `Given`), their nesting."""

    path: str
    leaves: tuple[Any, ...]
    spec: pytree.TreeSpec


@dataclass(frozen=True)
class CapturedPart:
    """How to call the captured part of a model.

    Attributes:
        calls: the calls of the modules, in order; empty for a wrapper that the user wrote.
        outputs: those results of the parts that the code around them uses.
    """

    calls: tuple[Call, ...] = ()
    outputs: tuple[Output, ...] = ()

    def of(self, model: nn.Module) -> nn.Module:
        """Returns a module that calls the part, with the model's own modules."""
        if not self.calls:
            raise PenjingError("The graph was captured through a wrapper: pass the wrapper as part=… here, too.")
        modules = dict(model.named_modules())
        for call in self.calls:
            if call.path not in modules:
                raise unknown_name("module path", call.path, [path for path in modules if path])
        if len(self.calls) == 1 and not any(isinstance(leaf, Output) for leaf in self.calls[0].leaves):
            return model.get_submodule(self.calls[0].path)
        return Parts(model, self)


class Parts(nn.Module):
    """Calls several modules as the model does, and passes each one's outputs on to the next.

    Takes the tensors that come from the code around the modules, in order of first use; returns a tuple of the results
    that this code uses.
    """

    def __init__(self, model: nn.Module, part: CapturedPart) -> None:
        super().__init__()
        self.called = nn.ModuleList(model.get_submodule(call.path) for call in part.calls)
        self.part = part

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Runs the parts."""
        results: list[list[Any]] = []

        def value(leaf: Any) -> Any:
            if isinstance(leaf, Given):
                return inputs[leaf.position]
            return results[leaf.call][leaf.leaf] if isinstance(leaf, Output) else leaf

        for module, call in zip(self.called, self.part.calls, strict=True):
            args, kwargs = pytree.tree_unflatten([value(leaf) for leaf in call.leaves], call.spec)
            results.append(pytree.tree_leaves(module(*args, **kwargs)))
        return tuple(results[output.call][output.leaf] for output in self.part.outputs)


def record(
    model: nn.Module, paths: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[CapturedPart, tuple[Tensor, ...]]:
    """Runs `model` and records the calls of the modules at `paths`.

    Returns:
        How to call the modules, and the tensors that they received from the code around them.

    Raises:
        PenjingError: `paths` is empty, a path names no module or lies inside another one, or a module wasn't called.
    """
    if not paths:
        raise PenjingError("part= names no module; give the path of one, or several.")
    modules = dict(model.named_modules())
    for path in paths:
        if path not in modules or not path:
            raise unknown_name("module path", path, [name for name in modules if name])
        inside = next((other for other in paths if path.startswith(f"{other}.")), None)
        if inside is not None:
            raise PenjingError(f"part= names '{path}', which is inside '{inside}'; leave one of them out.")
    watch = _Watch()
    with watch.following({path: modules[path] for path in paths}), torch.no_grad():
        result = model(*args, **kwargs)
    watch.note_used(result)
    for path in paths:
        if all(call.path != path for call in watch.calls):
            raise PenjingError(f"The model never calls its module '{path}' on these inputs; it can't be a part.")
    return watch.part(), tuple(watch.given)


class _Watch(TorchFunctionMode):
    """Records the inputs and outputs of modules, and which of the outputs other code uses."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.given: list[Tensor] = []
        self._known: dict[int, Output | Given] = {}
        self._versions: dict[int, int] = {}  # a higher version means that the tensor was written to meanwhile
        self._alive: list[Any] = []  # keeps tensors alive, since Python reuses the id of a freed object
        self._results: list[Output] = []
        self._used: set[Output] = set()
        self._depth = 0

    @contextlib.contextmanager
    def following(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Records the calls of these modules, and the uses of their results elsewhere."""
        handles = []
        for path, module in modules.items():
            before = lambda _module, args, kwargs, path=path: self._enter(path, args, kwargs)  # noqa: E731
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True, prepend=True))
            handles.append(module.register_forward_hook(lambda _module, _args, result: self._leave(result)))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._depth == 0 and func not in _LOOKS:
            self.note_used((args, kwargs))
        return func(*args, **(kwargs or {}))

    def note_used(self, values: Any) -> None:
        """Records that code outside of the parts uses these values."""
        for leaf in pytree.tree_leaves(values):
            known = self._known.get(id(leaf))
            if isinstance(known, Output):
                self._used.add(known)

    def part(self) -> CapturedPart:
        """Returns the recorded part. Results that nothing used count as outputs, too."""
        taken = {leaf for call in self.calls for leaf in call.leaves if isinstance(leaf, Output)}
        return CapturedPart(
            tuple(self.calls), tuple(out for out in self._results if out in self._used or out not in taken)
        )

    def _enter(self, path: str, args: Any, kwargs: Any) -> None:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        self._alive.append(leaves)
        self.calls.append(Call(path, tuple(self._reference(leaf) for leaf in leaves), spec))
        self._depth += 1

    def _reference(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in self._known or self._versions[id(leaf)] != leaf._version:
            self._know(leaf, Given(len(self.given)))
            self.given.append(leaf)
        return self._known[id(leaf)]

    def _know(self, tensor: Tensor, what: Output | Given) -> None:
        self._known[id(tensor)], self._versions[id(tensor)] = what, tensor._version

    def _leave(self, result: Any) -> None:
        self._depth -= 1
        leaves = pytree.tree_leaves(result)
        self._alive.append(leaves)
        for position, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                output = Output(len(self.calls) - 1, position)
                self._results.append(output)
                self._know(leaf, output)


def model_names(wrapper: nn.Module, model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Returns, for a wrapper around parts of a model, the model's own names of the wrapper's tensors and of its modules.

    Raises:
        PenjingError: the wrapper holds nothing of the model.
    """
    tensors = {id(tensor): name for name, tensor in reversed(model.state_dict(keep_vars=True).items())}
    modules = {id(module): path for path, module in model.named_modules()}
    names = {
        name: tensors[id(tensor)]
        for name, tensor in wrapper.state_dict(keep_vars=True).items()
        if id(tensor) in tensors
    }
    if not names:
        raise PenjingError(
            f"part= is a {type(wrapper).__name__} that holds none of the model's parameters; it must call the model's own "
            "modules."
        )
    paths = {
        path: modules[id(module)]
        for path, module in wrapper.named_modules(remove_duplicate=False)
        if id(module) in modules
    }
    return names, paths


WORTH = 0.3  # least share of the model's parameters: compressing smaller parts would save too little


def largest_capturable(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    captures: Callable[[nn.Module, Any, Any], bool],
    together: Callable[[list[str]], bool],
    tries: int = 12,
) -> list[str]:
    """Finds the largest submodule that can be captured, or several that can be captured together.

    Returns their paths in the order of their calls; an empty list where they hold too few of the parameters.

    Tries the largest modules first, then the children of modules that fail; gives up after `tries` modules.

    Args:
        model: the whole model.
        args: the model's positional inputs.
        kwargs: the model's inputs by keyword.
        captures: tells whether a module can be captured on these inputs.
        together: tells whether the modules at these paths can be captured as one.
        tries: how many modules to try.
    """
    inputs: dict[str, tuple[Any, Any]] = {}

    def note(path: str) -> Any:
        return lambda _module, args, kwargs: inputs.setdefault(path, (args, kwargs)) and None

    handles = [
        module.register_forward_pre_hook(note(path), with_kwargs=True) for path, module in model.named_modules() if path
    ]
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    waiting, found = _children(model, ""), []
    for _ in range(tries):
        if not waiting:
            return []
        path = max(waiting, key=lambda one: sum(p.numel() for p in waiting[one].parameters()))
        module = waiting.pop(path)
        if path not in inputs or not captures(module, *inputs[path]):
            waiting |= _children(module, path)
            continue
        found.append(path)
        if share(model, [path]) >= WORTH:
            return [path]
        if share(model, found) >= WORTH:
            ordered = [one for one in inputs if one in found]
            return ordered if together(ordered) else []
    return []


def share(model: nn.Module, paths: Sequence[str]) -> float:
    """Returns the share of a model's parameters that the modules at these paths hold, from 0 to 1."""
    held = {id(p): p.numel() for path in paths for p in model.get_submodule(path).parameters()}
    return sum(held.values()) / max(1, sum(p.numel() for p in model.parameters()))


def _children(module: nn.Module, path: str) -> dict[str, nn.Module]:
    return {
        f"{path}.{name}".lstrip("."): child
        for name, child in module.named_children()
        if next(child.parameters(), None) is not None
    }
