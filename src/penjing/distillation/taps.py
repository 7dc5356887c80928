"""Which inner values of a student are compared with which of its teacher's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from penjing.distillation.signals import Taps
from penjing.errors import PenjingError, unknown_name
from penjing.graph import Graph
from penjing.graph.ops import LAYERS, RECURRENT, aten

ATTENTION = aten.scaled_dot_product_attention.default
AUTO = "auto"

Pair = tuple[str, str]
Named = str | Sequence[str] | Mapping[str, str]
"""What a user may give: "auto", names of modules or nodes that both networks have, or a mapping from student to teacher."""


def tap_pairs(student: nn.Module, teacher: nn.Module, kind: Taps, named: Named = AUTO) -> list[Pair]:
    """Returns the names of the values to compare: nodes of a graph, modules of a plain module.

    "auto" pairs the ends of blocks by their resolution, and within one resolution by their order: where the teacher has more
    of them, the student's are spread over the teacher's, last with last. A block is a numbered module ("layer1.0") that holds
    two layers or more. In a graph without such modules, all maps of one resolution form one block.

    Args:
        student: the network that is trained.
        teacher: the network that it learns from.
        kind: the values that the signal compares; see `Signal.taps`.
        named: what the user asked for.

    Raises:
        PenjingError: a name is unknown, there is nothing to pair, or names are given to a signal that looks at nothing inside.
    """
    if not kind:
        if named != AUTO:
            raise PenjingError(
                "taps=… names inner values, and this signal compares outputs alone: leave taps out, or use a signal that looks "
                "inside, such as 'hints'."
            )
        return []
    if named != AUTO:
        given = dict(named) if isinstance(named, Mapping) else {one: one for one in _listed(named)}
        return [(found_node(student, one), found_node(teacher, other)) for one, other in given.items()]
    if kind == "attention":
        pairs = _attention_pairs(student, teacher)
    elif kind == "transformer":
        pairs = _by_resolution(_sequences(student), _sequences(teacher)) + _attention_pairs(student, teacher)
    else:
        pairs = _by_resolution(ends_of_blocks(student), ends_of_blocks(teacher))
        pairs = {"blocks": pairs, "middle": pairs[len(pairs) // 2 :][:1], "last": pairs[-1:]}[kind]
    if not pairs:
        what = {"attention": "attention", "transformer": "sequences (batch, positions, channels)"}.get(kind, "blocks")
        raise PenjingError(
            f"No {what} of the student could be paired with the teacher's: name them, as taps={{'student.module': "
            "'teacher.module'}, or use a signal that compares outputs, such as 'soft_labels'."
        )
    return pairs


def _listed(named: str | Sequence[str]) -> Sequence[str]:
    return [named] if isinstance(named, str) else list(named)


def found_node(network: nn.Module, name: str) -> str:
    """Returns the node (or, in a plain module, the module) of a name that the user gave."""
    if not isinstance(network, Graph):
        modules = dict(network.named_modules())
        if name not in modules:
            raise unknown_name("module", name, [one for one in modules if one])
        return name
    nodes = [node for node in network.program.graph.nodes if node.op == "call_function" and _is_value(node)]
    if any(node.name == name for node in nodes):
        return name
    inside = [node.name for node in nodes if _lies_in(node, name)]
    if not inside:
        known = [*{str(node.meta.get("module", "")): None for node in nodes}, *(node.name for node in nodes)]
        raise unknown_name("module or node", name, [one for one in known if one])
    return str(inside[-1])


def _lies_in(node: fx.Node, path: str) -> bool:
    return f"{node.meta.get('module', '')}.".startswith(f"{path}.")


def _is_value(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1


# The ends of blocks

Resolution = tuple[str, ...]


def ends_of_blocks(network: nn.Module) -> list[tuple[str, Resolution]]:
    """Returns the ends of a network's blocks with their resolutions, in order of execution."""
    if not isinstance(network, Graph):
        return [(name, ()) for name in _module_blocks(network)]
    nodes = [node for node in network.program.graph.nodes if node.op == "call_function" and _is_value(node)]
    paths = [str(node.meta.get("module", "")) for node in nodes if node.target in LAYERS or node.target in RECURRENT]
    blocks = numbered_blocks(paths)
    if blocks:
        ends = {block: node for node in nodes for block in blocks if _lies_in(node, block)}  # the last one stays
        found = sorted(ends.values(), key=nodes.index)
        return [(node.name, resolution_of(node)) for node in found]
    maps = [node for node in nodes if node.meta["val"].dim() > 2]
    last = {resolution_of(node): node for node in maps}
    return [(node.name, resolution) for resolution, node in last.items()]


def _module_blocks(network: nn.Module) -> list[str]:
    modules = network.named_modules()
    return numbered_blocks([name for name, module in modules if name and module._parameters.get("weight") is not None])


def numbered_blocks(paths: Sequence[str]) -> list[str]:
    """Returns the numbered modules that hold two of these layers or more: for each layer, the innermost such module."""
    found: dict[str, None] = {}
    for path in dict.fromkeys(paths):
        parts = path.split(".")
        for depth in range(len(parts) - 1, 0, -1):
            block = ".".join(parts[:depth])
            if parts[depth - 1].isdigit() and len({one for one in paths if one.startswith(f"{block}.")}) > 1:
                found[block] = None
                break
    return list(found)


def _sequences(network: nn.Module) -> list[tuple[str, Resolution]]:
    """Returns the ends of blocks that hold (batch, positions, channels); of a plain module, where no shapes are known, all."""
    return [(name, size) for name, size in ends_of_blocks(network) if len(size) == 1 or not isinstance(network, Graph)]


def resolution_of(node: fx.Node) -> Resolution:
    """Returns the sizes of a value behind batch and channels; free ones, which differ by name alone, as "*"."""
    shape: Sequence[Any] = node.meta["val"].shape
    sizes = shape[1:2] if len(shape) == 3 else shape[2:]
    return tuple(str(size) if isinstance(size, int) else "*" for size in sizes)


def _by_resolution(ours: Sequence[tuple[str, Resolution]], theirs: Sequence[tuple[str, Resolution]]) -> list[Pair]:
    pairs: list[Pair] = []
    for resolution in dict.fromkeys(one for _, one in ours):
        same = [[name for name, one in ends if one == resolution] for ends in (ours, theirs)]
        pairs += _spread(*same)
    return pairs or _spread([name for name, _ in ours], [name for name, _ in theirs])


def _spread(ours: Sequence[Any], theirs: Sequence[Any]) -> list[Any]:
    """Pairs each of the fewer with one of the more, evenly spread, the last with the last."""
    count = min(len(ours), len(theirs))
    pick: Callable[[Sequence[Any], int], Any] = lambda some, place: some[(place + 1) * len(some) // count - 1]  # noqa: E731
    return [(pick(ours, place), pick(theirs, place)) for place in range(count)]


def _attention_pairs(student: nn.Module, teacher: nn.Module) -> list[Pair]:
    """Returns for each attention that is compared the pair of its queries, and then that of its keys."""
    layers = _spread(_attentions(student), _attentions(teacher))
    return [(own, other) for one, two in layers for own, other in zip(one, two, strict=True)]


def _attentions(network: nn.Module) -> list[tuple[str, str]]:
    """Returns the nodes of the queries and of the keys of each attention."""
    if not isinstance(network, Graph):
        return []
    return [
        (node.args[0].name, node.args[1].name)  # type: ignore[union-attr]
        for node in network.program.graph.nodes
        if node.target is ATTENTION
    ]
