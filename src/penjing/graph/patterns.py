"""Patterns by which users name modules, alike wherever something is included or excluded."""

import fnmatch
from collections.abc import Iterable, Iterator, Sequence

from penjing.errors import unknown_name
from penjing.graph.graph import Graph


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Tells whether any pattern names the module at `path`, or a module above it.

    Args:
        path: such as "layer1.0.conv1".
        patterns: paths in which `*`, `?` and `[…]` stand for other text, dots included.
    """
    return any(fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(path, f"{p}.*") for p in patterns)


def module_paths(graph: Graph) -> set[str]:
    """Returns the paths of all modules that hold a tensor or run an op, and of those above them.

    An op that the model runs itself, in no module, goes by the name of its node.
    """
    ends = {name.rpartition(".")[0] for name in graph.tensors()}
    ends |= {node.meta.get("module") or node.name for node in graph.program.graph.nodes if node.op == "call_function"}
    return {path for end in ends for path in _upwards(end)}


def check_patterns(graph: Graph, patterns: Sequence[str]) -> None:
    """Makes sure that every pattern names something.

    Raises:
        PenjingError: a pattern matches no module; names the nearest path.
    """
    paths = module_paths(graph) if patterns else set()
    for pattern in patterns:
        if not any(matches(path, [pattern]) for path in paths):
            raise unknown_name("module pattern", pattern, paths)


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
