"""What each channel contributes to the layers that read it, and weights that make up for removed channels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.evidence import Evidence
from penjing.evidence.gram import LayerProduct, grams, products
from penjing.graph import AxisEntry, Group

RIDGE = 1e-4  # strength that pulls new weights to the old ones, relative to the inputs' mean square


@dataclass(frozen=True)
class Readers:
    """The layers that read the channels of groups, with the Gram matrices of their inputs.

    Attributes:
        evidence: the model, its groups and the data.
        layers: the layers, by the names of their weights.
        grams: the Gram matrices, `(size, size)`, by the names of the weights.
    """

    evidence: Evidence
    layers: Mapping[str, LayerProduct]
    grams: Mapping[str, Tensor]

    def contributions(self, group: Group) -> Tensor:
        """Returns the Gram matrix `(units, units)` of what each unit contributes to the outputs of its readers.

        The contributions of all units add up to the outputs. Each reader's matrix is divided by the squared norm of its
        outputs, so that all readers count alike.
        """
        total = torch.zeros(group.units, group.units, dtype=torch.float64)
        for entry in _reads(group):
            if entry.tensor not in self.layers:
                continue
            matrix = self.matrix(entry.tensor)
            gram = self.grams[entry.tensor].double() * (matrix.T @ matrix)
            unit_of = self._unit_of(entry, group)
            share = torch.zeros(group.units + 1, len(gram), dtype=torch.float64)
            share[unit_of, torch.arange(len(gram))] = 1.0
            found = (share @ gram @ share.T)[:-1, :-1]
            total += found / found.sum().clamp_min(torch.finfo(torch.float64).tiny)
        return total

    def refitted(self, removed: Mapping[int, np.ndarray]) -> dict[str, Tensor]:
        """Returns the readers' weights that give, by least squares, the same outputs without the removed units.

        Args:
            removed: the units that go, by their group's position among the evidence's groups.
        """
        found: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            gone = torch.zeros(layer.weight.shape[1], dtype=torch.bool)
            for position, units in removed.items():
                for entry in self.evidence.groups[position].entries:
                    if entry.tensor == name and entry.role == "in":
                        gone[torch.from_numpy(entry.indices[units].ravel())] = True
            if bool(gone.any()):
                found[name] = self._refit(name, layer, gone)
        return found

    def matrix(self, name: str) -> Tensor:
        """Returns a weight as `(out_channels, in_channels · kernel)`, in double precision."""
        return self.layers[name].weight.view(self.evidence.graph.tensor(name).detach()).flatten(1).double().cpu()

    def _refit(self, name: str, layer: LayerProduct, gone: Tensor) -> Tensor:
        matrix, gram = self.matrix(name), self.grams[name].double()
        keep = (~gone).repeat_interleave(len(gram) // len(gone))
        ridge = RIDGE * gram.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        inner = gram[keep][:, keep] + ridge * torch.eye(int(keep.sum()), dtype=gram.dtype)
        aim = gram[keep] @ matrix.T + ridge * matrix[:, keep].T
        fitted = torch.zeros_like(matrix)
        fitted[:, keep] = torch.linalg.solve(inner, aim).T
        return layer.weight.restore(fitted, self.evidence.graph.tensor(name))

    def _unit_of(self, entry: AxisEntry, group: Group) -> Tensor:
        """Returns the unit of each column of a weight's matrix; a column that belongs to no unit gets `group.units`."""
        weight = self.layers[entry.tensor].weight
        unit_of = torch.full((weight.shape[1],), group.units)
        unit_of[torch.from_numpy(entry.indices.ravel())] = torch.arange(group.units).repeat_interleave(
            entry.indices.shape[1]
        )
        return unit_of.repeat_interleave(torch.Size(weight.shape[2:]).numel())


def readers(evidence: Evidence) -> Readers:
    """Collects the Gram matrices of all layers that read the groups' channels, in one pass over the calibration data.

    Layers that aren't one plain product (grouped convolutions, recurrent layers) are left out where another layer reads
    the same channels.

    Raises:
        PenjingError: no layer that reads a group is a plain product, or there is no data.
    """
    names = list(dict.fromkeys(entry.tensor for group in evidence.groups for entry in _reads(group)))
    plain = {
        name: layers[0]
        for name, layers in products(evidence, names).items()
        if len(layers) == 1 and layers[0].groups == 1
    }
    for group in evidence.groups:
        if not any(entry.tensor in plain for entry in _reads(group)):
            raise PenjingError(
                f"No convolution or linear layer reads the channels of {group.name}, so that there are no outputs to "
                "reconstruct; use another criterion, or leave that module out with exclude=…."
            )
    found = grams(evidence, list(plain.values()))
    return Readers(evidence, plain, {name: gram[0].cpu() for name, gram in found.items()})


def _reads(group: Group) -> Sequence[AxisEntry]:
    return [entry for entry in group.entries if entry.role == "in"]
