"""What verbs ask of a graph or a module that they are given."""

import torch
from torch import nn

from penjing.checks import Rule, a, several, whole
from penjing.graph.graph import Graph


def _is_there(module: nn.Module) -> bool:
    """Tells whether a module's tensors hold values: those on "meta" have shapes alone."""
    return not any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))


def _is_python(module: nn.Module) -> bool:
    return not any(isinstance(one, torch.jit.ScriptModule) for one in module.modules())


GRAPH = Rule(
    "a captured graph, as penjing.capture(model, example_inputs) makes one, whose tensors hold values (not on 'meta')",
    lambda value: isinstance(value, Graph) and _is_there(value),
)
GIVEN = Rule(
    "a captured graph, as penjing.capture(model, example_inputs) makes one, or what penjing.compress returned",
    lambda value: GRAPH.fits(value) or GRAPH.fits(getattr(value, "graph", None)),
    lambda value: value if isinstance(value, Graph) else value.graph,
)
MODULE = a(nn.Module, "an nn.Module")
TRAINED = Rule(
    "an nn.Module whose tensors hold values (not on 'meta')", lambda value: MODULE.fits(value) and _is_there(value)
)
CAPTURABLE = Rule(
    "an nn.Module in Python (no torch.jit module) whose tensors hold values (not on 'meta')",
    lambda value: TRAINED.fits(value) and _is_python(value),
)
AXES = several(whole(-8, 8), "axes")
