"""Checks what a runtime computes in integers by the model that it really executes, not by the tables of what it can do."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from penjing.capabilities import Capabilities, find
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.patterns import matches
from penjing.targets import available, find_target, lower, profile

NAMED = 5  # ops that one error names at most
AS_ASKED = ("asked", "metric")  # reasons for which the plan leaves a place in floating point by the user's will


def check_executed_in_integers(small: Graph, target: Capabilities | str, exclude: Sequence[str]) -> None:
    """Lowers a quantised graph, and checks that the target multiplies in integers everywhere but in excluded modules.

    Where the target can't be run on this machine, or is one of the user's own, a warning says that nothing was checked.

    Args:
        small: the quantised graph; it stays as it was.
        target: the runtime.
        exclude: patterns of module paths that may compute in floating point, beside places that the plan leaves so as asked.

    Raises:
        PenjingError: an op multiplies in floating point; the error names the op and its module.
    """
    name = find(target).name
    if not any(one.name == name and one.usable for one in available()):
        warnings.warn(
            f"placement='integer' went by what is known of {name}: it can't be run on this machine, so the model that it "
            "executes wasn't looked at.",
            stacklevel=4,
        )
        return
    asked = [step.place.path for step in small.plan if step.found.get("reason") in AS_ASKED]
    with tempfile.TemporaryDirectory() as folder:
        nodes = profile(lower(small, name, Path(folder) / f"model{find_target(name).suffix}"))
    free = (*exclude, *asked)
    left = [node for node in nodes if node.macs and not node.integer and not matches(node.module or "", free)]
    if left:
        named = ", ".join(f"'{node.op}' in '{node.module or node.name}'" for node in left[:NAMED])
        raise PenjingError(
            f"placement='integer' leaves no layer in floating point, but {name} executes {named}"
            f"{' and others' if len(left) > NAMED else ''} in floating point there. Exclude the layers that may stay so, or "
            "use placement='fastest'."
        )
