"""What penalties look at in a graph: weights as matrices, the units of its channels, the scales of its norms."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.graph import AxisEntry, Graph, Group, channels
from penjing.graph.weights import Weight, weights

Part = Literal["weights", "units", "scales"]


@dataclass(frozen=True)
class Structure:
    """The parts of a graph that penalties look at. Their names are found once, their values are read at every step.

    Attributes:
        graph: the graph that is trained.
        weights: the weights of the layers that multiply.
        groups: the groups of channels that can be removed.
    """

    graph: Graph
    weights: tuple[Weight, ...] = ()
    groups: tuple[Group, ...] = ()
    _indices: dict[tuple[int, torch.device], Tensor] = field(default_factory=dict, repr=False, compare=False)

    def matrices(self) -> list[Tensor]:
        """Returns each layer's weight as a matrix `(out_channels, in_channels · kernel positions)`."""
        return [weight.view(self.graph.tensor(weight.name)).flatten(1) for weight in self.weights]

    def scales(self) -> list[Tensor]:
        """Returns the scales of the norms on the groups' channels; a norm that several groups share stands there once."""
        entries = (entry for group in self.groups for entry in group.entries)
        names = dict.fromkeys(entry.tensor for entry in entries if entry.role == "scale")
        return [self.graph.tensor(name) for name in names]

    def unit_squares(self) -> Iterator[Tensor]:
        """Yields, for each group, the sum of squares of all parameters that a unit holds, `(units,)`.

        A unit holds what makes its channels (rows of weights, biases, scales, shifts) and what reads them (columns).
        """
        for group in self.groups:
            of_tensor: dict[str, list[AxisEntry]] = {}
            for entry in group.entries:
                of_tensor.setdefault(entry.tensor, []).append(entry)
            tensors = {name: self.graph.tensor(name) for name in of_tensor}
            held = [
                name for name, tensor in tensors.items() if isinstance(tensor, nn.Parameter)
            ]  # no running statistics
            if held:
                yield torch.stack([self._sums(tensors[name].square(), of_tensor[name]) for name in held]).sum(0)

    def _sums(self, values: Tensor, entries: list[AxisEntry]) -> Tensor:
        """Returns the sum of each unit's values in a tensor, `(units,)`, each value once.

        A recurrent weight both makes and reads a unit, so some values lie in a row and in a column of it: they are counted by
        inclusion and exclusion over the axes.
        """
        total = torch.zeros(len(entries[0].indices), dtype=values.dtype, device=values.device)
        for count in range(1, len(entries) + 1):
            for some in combinations(entries, count):
                others = [axis for axis in range(values.ndim) if axis not in {entry.axis for entry in some}]
                summed = values.sum(others) if others else values
                # `(units, copies, 1)` for the first axis and `(units, 1, copies)` for the second: all pairs of a unit's indices
                where = []
                for position, entry in enumerate(sorted(some, key=lambda entry: entry.axis)):
                    index = self._index(entry, values.device)
                    where.append(index.reshape(len(index), *([1] * position), -1, *([1] * (count - 1 - position))))
                total = total + (-1) ** (count + 1) * summed[tuple(where)].flatten(1).sum(1)
        return total

    def _index(self, entry: AxisEntry, device: torch.device) -> Tensor:
        key = (id(entry), device)  # the groups, which live as long as this, hold the entries
        if key not in self._indices:
            self._indices[key] = torch.from_numpy(entry.indices).to(device)
        return self._indices[key]


def structure_of(graph: nn.Module, part: Part, penalty: str) -> Structure:
    """Returns the part of a graph's structure that a penalty looks at.

    Args:
        graph: a captured graph.
        part: what is needed of it.
        penalty: the penalty's name, for errors.

    Raises:
        PenjingError: it isn't a captured graph, or it has no such part.
    """
    if not isinstance(graph, Graph):
        raise PenjingError(
            f"penalty='{penalty}' looks at the layers of a captured graph, and this is {type(graph).__name__}, a plain "
            "nn.Module: pass penjing.capture(model, example_inputs)."
        )
    if part == "weights":
        structure = Structure(graph, weights=weights(graph))
        if not structure.weights:
            raise PenjingError(f"penalty='{penalty}' shapes the weights of layers, and this graph has no such layer.")
        return structure
    structure = Structure(graph, groups=channels(graph).groups)
    if not structure.groups:
        raise PenjingError(
            f"penalty='{penalty}' shapes channels that can be removed, and none of this graph's can: `penjing channels` tells "
            "why."
        )
    if part == "scales" and not structure.scales():
        raise PenjingError(
            f"penalty='{penalty}' shapes the scales of norms, and no channels that can be removed have a norm with scales behind "
            "them. 'group_lasso' needs none."
        )
    return structure
