"""Single weights, for pruning that keeps shapes: which parameters multiply, and how their axes lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.graph import Graph
from penjing.graph.channels.labelling import Labeller
from penjing.graph.ops import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from penjing.graph.patterns import check_patterns, matches


@dataclass(frozen=True)
class Weight:
    """A parameter that a layer multiplies by.

    Attributes:
        name: the parameter's name.
        axes: its axes in the order in which `view` lays them out.
        shape: sizes of that layout.
    """

    name: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def place(self) -> str:
        """What the plan calls it, see `place_of`."""
        return place_of(self.name)

    def view(self, values: Tensor) -> Tensor:
        """Returns values of the parameter's shape as `(out_channels, in_channels, *kernel)`, however the layer stores them.

        A matrix has no kernel; stacked matrices stand below one another.
        """
        return values.permute(self.axes).reshape(self.shape)

    def restore(self, viewed: Tensor, like: Tensor) -> Tensor:
        """Returns what `view` laid out, flattened or not, as the parameter `like` is: its shape, type and device."""
        positions = self.view(torch.arange(like.numel()).reshape(like.shape)).flatten()
        flat = torch.empty(like.numel(), dtype=like.dtype, device=like.device)
        flat[positions.to(like.device)] = viewed.flatten().to(flat)
        return flat.reshape(like.shape)


def place_of(name: str) -> str:
    """Returns the path of a parameter's module; with its own name where that says more than "weight"."""
    path, _, leaf = name.rpartition(".")
    return path if path and leaf == "weight" else name


def weights(graph: Graph, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> tuple[Weight, ...]:
    """Returns the weights of all layers that multiply: convolutions, linear and recurrent layers, products of matrices.

    Tied weights are there once; a table that is also looked up in, as an embedding, is not there.

    Args:
        graph: a captured graph.
        include: patterns of module paths; if given, only their weights.
        exclude: patterns of module paths whose weights are left out.

    Raises:
        PenjingError: a pattern matches no module.
    """
    check_patterns(graph, [*include, *exclude])
    labeller = Labeller(graph, "auto")
    labeller.walk()
    convolved = {
        str(node.args[1].target)  # type: ignore[union-attr]
        for node in graph.program.graph.nodes
        if node.target in (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)
    }
    found: dict[int, Weight] = {}
    for name in labeller.tensors:
        tensor, path = graph.tensor(name), name.rpartition(".")[0]
        if (include and not matches(path, include)) or matches(path, exclude):
            continue
        roles = [labeller.roles.get((name, axis)) for axis in range(tensor.dim())]
        if isinstance(tensor, torch.nn.Parameter) and {"out", "in"} <= set(roles):
            found.setdefault(id(tensor), _weight(name, tensor, roles, name in convolved))
    return tuple(found.values())


def _weight(name: str, tensor: Tensor, roles: Sequence[str | None], kernel: bool) -> Weight:
    outs, ins, others = ([i for i, role in enumerate(roles) if role == one] for one in ("out", "in", None))
    if not kernel:
        outs, others = others + outs, []
    size = tensor.shape.numel()
    inputs = torch.Size(tensor.shape[i] for i in ins).numel()
    window = tuple(tensor.shape[i] for i in others)
    shape = (size // max(inputs * torch.Size(window).numel(), 1), inputs, *window)
    return Weight(name, (*outs, *ins, *others), shape)
