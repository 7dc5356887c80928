"""Sizes that a model's own modules keep as attributes (`num_heads`, `hidden_size`), as they must become after surgery.

Which attribute holds which size is read off the graph: where a node's constant was 12 in a graph of the model as it was
and is 6 now, an attribute of the node's module that holds 12 and that its `forward` uses must become 6.
"""

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import fx, nn

if TYPE_CHECKING:
    from penjing.graph.graph import Graph


def user_sizes(
    before: "Graph", after: "Graph", model: nn.Module, *, ambiguous: bool = False
) -> Iterator[tuple[nn.Module, str, Any]]:
    """Gives the attributes of modules of `model` that must change: module, name and new value.

    Args:
        before: a graph of the model as it is.
        after: the graph that was made of it by surgery; nodes that stayed have kept their names.
        model: the model whose module paths stand in both graphs. PyTorch's own layers are left out.
        ambiguous: whether to change a size, too, that stands for something else as well in the same module, as 3 does
            where three heads are cut out of queries, keys and values. Whether that is right, only the outputs tell.
    """
    changed = _changed(before, after, ambiguous)
    for path, module in model.named_modules():
        sizes = changed.get(path)
        if sizes is None or type(module).__module__.startswith("torch.nn."):
            continue
        used = _used(module)
        for name, value in module.__dict__.items():
            new = _renewed(value, sizes)
            if new != value and (used is None or name in used):
                yield module, name, new


def _changed(before: "Graph", after: "Graph", ambiguous: bool) -> dict[str, dict[int, int]]:
    """Returns per module path which constants of its own nodes became which, where that is the same for all of them."""
    kept = {node.name: node for node in after.program.graph.nodes}
    pairs: dict[str, dict[int, set[int]]] = {}
    for old in before.program.graph.nodes:
        for a, b in zip(_sizes(old), _sizes(kept[old.name]), strict=False) if old.name in kept else ():
            if a is not None and b is not None:
                pairs.setdefault(old.meta.get("module", ""), {}).setdefault(a, set()).add(b)
    result: dict[str, dict[int, int]] = {}
    for path, of in pairs.items():
        for a, became in of.items():
            new = became - {a} if ambiguous else became
            if len(new) == 1 and new != {a}:
                result.setdefault(path, {})[a] = new.pop()
    return result


def _sizes(node: fx.Node) -> Iterator[int | None]:
    """Gives the constants of an op's arguments that are sizes (`SymInt` in its schema), not those that name axes; None for
    sizes that are free.
    """
    schema = getattr(node.target, "_schema", None)
    sizes = set(re.findall(r"SymInt\S* (\w+)", str(schema)))
    for argument, value in zip(schema.arguments if schema else (), node.args, strict=False):
        if argument.name in sizes:
            every = value if isinstance(value, list | tuple) else [value]
            yield from (one if type(one) is int else None for one in every)


def _renewed(value: Any, sizes: dict[int, int]) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return sizes.get(value, value)
    if isinstance(value, list | tuple) and value and all(type(one) is int for one in value):
        return type(value)([sizes.get(one, one) for one in value]) if type(value) in (list, tuple) else value
    return value


def _used(module: nn.Module) -> set[str] | None:
    """Returns the attributes that the class' own methods, but for its constructor, read; None if it has no source."""
    names: set[str] = set()
    for name, function in inspect.getmembers(type(module), inspect.isfunction):
        if name == "__init__" or function.__module__.startswith("torch.nn."):
            continue
        try:
            names |= set(re.findall(r"\bself\.(\w+)", inspect.getsource(function)))
        except OSError:  # made in an interpreter: there is no source to look at
            return None
    return names
