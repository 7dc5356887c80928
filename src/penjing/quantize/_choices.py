"""What is done to the weights of each layer: the user's words, read and checked against the layers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.ops import CONVOLUTIONS, RECURRENT, RECURRENT_PARAMETERS
from penjing.graph.patterns import check_patterns, matches
from penjing.quantize._grain import Grain, find_grain
from penjing.quantize.grids import WeightGrid, find_grid

FLOAT = "float32"
LAYERS = frozenset({*CONVOLUTIONS, torch.ops.aten.linear.default})


@dataclass(frozen=True)
class Choice:
    """The grid of a layer's weights, and which of them share a scale."""

    grid: WeightGrid
    grain: Grain

    @property
    def words(self) -> str:
        """How plans call it: "int4 weights per group of 32"."""
        return f"{self.grid.name} weights per {self.grain.words}"


def find_choice(name: str, grain: str) -> Choice:
    """Reads a grid and the grain that it is asked for with, or "GRID/GRAIN", which has its own.

    Raises:
        PenjingError: a name is unknown, or the grid doesn't know the grain.
    """
    name, slash, own = name.partition("/") if isinstance(name, str) else (name, "", "")
    grid, asked = find_grid(name), own if slash else grain
    allowed: Sequence[str] = grid.entry.traits["grains"]
    chosen = find_grain(allowed[0] if asked == "auto" else asked)
    if chosen.kind not in allowed:
        raise PenjingError(f"The grid '{name}' knows the grains {' and '.join(allowed)}, not '{chosen.name}'.")
    return Choice(grid, chosen)


@dataclass(frozen=True)
class Choices:
    """The choices for all layers.

    Attributes:
        usual: for the layers that no pattern fits.
        special: for the others, by pattern; None for floating point. The first pattern that fits wins.
        exclude: patterns of what computes in floating point.
    """

    usual: Choice
    special: Mapping[str, Choice | None]
    exclude: tuple[str, ...]

    def of(self, layer: fx.Node) -> Choice | None:
        """Returns the choice for a layer; None for floating point."""
        paths = layer.meta.get("module", ""), place_of(layer)
        if any(matches(path, self.exclude) for path in paths):
            return None
        for pattern, choice in self.special.items():
            if any(matches(path, [pattern]) for path in paths):
                return choice
        return self.usual

    @property
    def all(self) -> list[Choice]:
        """Every choice that is made anywhere."""
        return [self.usual, *(choice for choice in self.special.values() if choice is not None)]


def read_choices(
    graph: Graph, weights: str, grain: str, per_layer: Mapping[str, str] | None, exclude: Sequence[str]
) -> Choices:
    """Reads what the user asks for.

    Raises:
        PenjingError: a name is unknown, or a pattern fits no module.
    """
    places = weights_by_place(graph)  # a weight of the network itself has no module path, only its place
    check_patterns(graph, [pattern for pattern in (*exclude, *(per_layer or {})) if pattern not in places])
    special = {
        pattern: None if name == FLOAT else find_choice(name, grain) for pattern, name in (per_layer or {}).items()
    }
    return Choices(find_choice(weights, grain), special, tuple(exclude))


def check_groups(graph: Graph, layers: Iterable[fx.Node], choice_of: Callable[[fx.Node], Choice | None]) -> None:
    """Makes sure that groups divide the weights of the layers that have them.

    Raises:
        PenjingError: some don't; names them all with the sizes of their channels.
    """
    odd: dict[str, str] = {}
    for layer in layers:
        choice, weight = choice_of(layer), graph.tensor(weight_of(layer))
        if choice is not None and not choice.grain.fits(weight):
            odd[place_of(layer)] = f"'{place_of(layer)}' ({weight[0].numel()} weights per channel, {choice.grain.name})"
    if odd:
        first = next(iter(odd))
        raise PenjingError(
            f"The group doesn't divide the weights of {', '.join(odd.values())}. Give a size that does, a grain of their "
            f'own to these layers, such as per_layer={{"{first}": "int8/channel"}}, or leave them in floating point with '
            f'exclude=["{first}"].'
        )


def weights_by_place(graph: Graph) -> dict[str, list[Tensor]]:
    """Returns the weights of each convolution, linear and recurrent layer of a float graph, by the module that holds them."""
    found: dict[str, list[Tensor]] = {}
    for node in graph.program.graph.nodes:
        if node.target in RECURRENT:
            found.setdefault(place_of(node), []).extend(map(graph.tensor, matrices(graph, node)))
        elif node.target in LAYERS and isinstance(node.args[1], fx.Node) and node.args[1].op == "get_attr":
            found[place_of(node)] = [graph.tensor(weight_of(node))]
    return {place: weights for place, weights in found.items() if weights}


def weight_of(layer: fx.Node) -> str:
    """Returns the name of the weight that a layer, not yet quantised, reads."""
    weight = layer.args[1]
    return str(weight.target)


def matrices(graph: Graph, recurrent: fx.Node) -> list[str]:
    """Returns the names of the matrices that a recurrent layer, not yet quantised, reads."""
    given: Any = recurrent.args[RECURRENT_PARAMETERS]
    paths = [str(parameter.target) for parameter in given if parameter.op == "get_attr"]
    return [path for path in paths if graph.tensor(path).dim() > 1 and graph.tensor(path).dtype == torch.float32]


def place_of(node: fx.Node) -> str:
    """Returns where the user finds a layer: the module that holds its weight."""
    weight: Any = node.args[1] if len(node.args) > 1 else None
    if node.target in RECURRENT:
        parameters: Any = node.args[RECURRENT_PARAMETERS]
        weight = parameters[0]
    owner = str(weight.target).rpartition(".")[0] if isinstance(weight, fx.Node) and weight.op == "get_attr" else ""
    return owner or node.meta.get("module") or node.name
