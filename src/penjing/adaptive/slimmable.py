"""A network of several widths that share their weights, switched by one integer while it runs."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from penjing.checks import PATH, TEXT, checked
from penjing.errors import PenjingError
from penjing.graph import Graph, remove
from penjing.graph.edit.surgery import kept_indices
from penjing.graph.ops import aten, node_arguments
from penjing.pruning.ranking import Ranking
from penjing.targets import Artifact, find_target, lower

STATISTICS = slice(1, 5)  # arguments of `aten.batch_norm` that each width has for itself: weight, bias, mean, variance


class Slimmable(nn.Module):
    """Several widths of a network in one set of weights: a narrow width uses the most important channels of a wider one.

    It is called as the network was called, and computes at the width that `width` says. Batch norms belong to one width each,
    since fewer channels have other statistics (Yu et al. 2019); all other weights are shared.

    Attributes:
        widths: the shares of the channels, from narrow to wide.
        wide: the graph of the widest width, which holds the shared weights.
        slim: the graphs of the others, narrow to wide. They hold only what they don't share, and don't run by themselves: see
            `graph`.
        ranks: the units of each of the widest graph's groups, those that matter most first.
        counts: how many units of each group the narrow widths keep.
        settings: by which choices the units were put in order.
    """

    takes_mapping = True

    def __init__(self, wide: Graph, widths: Sequence[float], ranking: Ranking, counts: Sequence[Sequence[int]]) -> None:
        """Takes the widest graph, its ranked units, and how many of them each of the narrower widths keeps of each group."""
        super().__init__()
        self.widths, self.wide = tuple(widths), wide
        self.ranks = [order.tolist() for order in ranking.orders]
        self.counts, self.settings = [list(one) for one in counts], ranking.setting
        self._indices: list[
            dict[str, list[tuple[int, Tensor]]]
        ] = []  # of each narrow width: by name, axes and what they keep
        self.slim = nn.ModuleList()
        for one in self.counts:
            gone = ranking.without(one)
            small = remove(wide, ranking.channels, gone)
            small.plan += ranking.steps(one)
            kept, own = kept_indices(wide, ranking.channels, gone), _of_norms(small)
            shared = [name for name in small.tensors() if name not in own]
            self._indices.append({name: _axes(kept[name]) for name in shared})
            for name in shared:  # only a name for what will be put there
                small.set_tensor(name, torch.empty(0, dtype=small.tensor(name).dtype), persistent=False)
            self.slim.append(small)
        self._width = len(self.widths) - 1
        self.eval()

    @property
    def width(self) -> int:
        """The position in `widths` of the width at which the network computes; it may be set at any time."""
        return self._width

    @width.setter
    def width(self, position: int) -> None:
        self._width = self._checked(position)

    def forward(self, *args: Any, width: int | None = None, **kwargs: Any) -> Any:
        """Runs the network.

        Each call takes a narrow width's part of the shared weights anew, so that a change of a weight always counts. To call
        one width many times with weights that stay, take `graph`, which holds that part.

        Args:
            args: inputs, nested as the network takes them.
            width: the position in `widths` for this call; None takes that of the attribute.
            kwargs: inputs by name.

        Raises:
            PenjingError: there is no such width, or an input has another shape than the captured one.
        """
        position = self._width if width is None else self._checked(width)
        if position == len(self.slim):
            return self.wide(*args, **kwargs)
        return functional_call(self.slim[position], self._gather(position), args, kwargs)

    def graph(self, width: int) -> Graph:
        """Returns a graph of one width with weights of its own: it gives the very outputs of the switched network.

        Raises:
            PenjingError: there is no such width.
        """
        position = self._checked(width)
        if position == len(self.slim):
            return copy.deepcopy(self.wide)
        found: Graph = copy.deepcopy(self.slim[position])  # type: ignore[assignment]
        transient, tied = self.wide.transient(), dict[int, Tensor]()
        with torch.no_grad():
            for name, part in self._gather(position).items():
                whole = self.wide.tensor(name)
                if id(whole) not in tied:  # tied weights stay tied
                    own = part.clone()
                    tied[id(whole)] = nn.Parameter(own, whole.requires_grad) if isinstance(whole, nn.Parameter) else own
                found.set_tensor(name, tied[id(whole)], persistent=name not in transient)
        return found

    @checked(target=TEXT, folder=PATH)
    def lower(self, target: str, folder: Path | str) -> list[Artifact]:
        """Writes one file for each width, for runtimes that can't switch: `width-0.25.onnx` and so on, narrow to wide.

        Raises:
            PenjingError: what `penjing.lower` raises.
        """
        suffix = find_target(target).suffix
        return [
            lower(self.graph(place), target, Path(folder, f"width-{width:g}{suffix}"))
            for place, width in enumerate(self.widths)
        ]

    def save(self, folder: Path | str) -> None:
        """Writes a folder from which `Slimmable.load` reads the network: no class is needed and no pickle.

        Raises:
            PenjingError: it can't be written.
        """
        from penjing.adaptive import _slimmable_files  # it makes what this module defines

        _slimmable_files.save(self, Path(folder))

    @staticmethod
    def load(folder: Path | str) -> "Slimmable":
        """Reads what `save` wrote; a folder from a stranger does no harm.

        Raises:
            PenjingError: the folder lacks a file, or one is damaged or belongs to another network.
        """
        from penjing.adaptive import _slimmable_files  # it makes what this module defines

        return _slimmable_files.load(Path(folder))

    def _checked(self, position: int) -> int:
        if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < len(self.widths):
            named = ", ".join(f"{place} ({width:g})" for place, width in enumerate(self.widths))
            raise PenjingError(f"width={position!r}: it must be the position of a width: {named}.")
        return position

    def _gather(self, position: int) -> dict[str, Tensor]:
        """Returns the parts of the shared tensors that a narrow width uses."""
        found = {}
        for name, axes in self._indices[position].items():
            tensor = self.wide.tensor(name)
            for axis, kept in axes:
                tensor = tensor.index_select(axis, kept.to(tensor.device))
            found[name] = tensor
        return found

    def extra_repr(self) -> str:
        """The widths, and at which of them the network computes."""
        return f"widths {', '.join(f'{width:g}' for width in self.widths)}; computes at {self.widths[self.width]:g}"


def _axes(kept: Sequence[np.ndarray | None]) -> list[tuple[int, Tensor]]:
    return [(axis, torch.from_numpy(indices)) for axis, indices in enumerate(kept) if indices is not None]


def _of_norms(graph: Graph) -> set[str]:
    """Returns the names of the tensors of batch norms."""
    norms = [node_arguments(node) for node in graph.program.graph.nodes if node.target is aten.batch_norm.default]
    return {
        str(one.target) for arguments in norms for one in arguments[STATISTICS] if getattr(one, "op", "") == "get_attr"
    }
