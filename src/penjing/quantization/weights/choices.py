"""The user's choice of a grid and a grain for the weights of each layer, read and checked against the layers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import fx

from penjing.errors import PenjingError
from penjing.graph import Graph, Option
from penjing.graph.ops import LAYERS, LOOKUPS, RECURRENT
from penjing.graph.patterns import check_patterns, matches
from penjing.quantization.grids import WeightGrid, find_grid
from penjing.quantization.settings import QuantizationSettings
from penjing.quantization.weights._grain import Grain, find_grain
from penjing.quantization.weights.places import place_of, weight_of, weights_by_place

FLOAT = "float32"


@dataclass(frozen=True)
class Choice:
    """The grid of a layer's weights, and the grain, which says which weights share a scale."""

    grid: WeightGrid
    grain: Grain

    @property
    def words(self) -> str:
        """The choice in words, for errors: "int4 weights per group of 32"."""
        return f"{self.grid.name} weights per {self.grain.words}"


def find_choice(name: str, grain: str) -> Choice:
    """Reads the names of a grid and a grain; "GRID/GRAIN" as the grid's name overrides the grain.

    Raises:
        PenjingError: a name is unknown, or the grid doesn't work with the grain.
    """
    name, slash, own = name.partition("/") if isinstance(name, str) else (name, "", "")
    grid, asked = find_grid(name), own if slash else grain
    allowed = grid.entry.grains
    chosen = find_grain(allowed[0] if asked == "auto" else asked)
    if chosen.kind not in allowed:
        raise PenjingError(f"The grid '{name}' knows the grains {' and '.join(allowed)}, not '{chosen.name}'.")
    return Choice(grid, chosen)


def grid_of(option: Option) -> str:
    """Returns the grid of a layer's weights in an option, as `per_layer` names it: "int8/channel", or "float32"."""
    name, grain = str(option.setting["weights"]), option.setting.get("grain")
    return name if name == FLOAT or grain is None else f"{name}/{grain}"


@dataclass(frozen=True)
class Choices:
    """The choices for all layers.

    Attributes:
        usual: the choice for layers that no pattern fits.
        special: the choices for other layers, by pattern; None for floating point. The first pattern that fits wins.
        include: patterns of the only modules that are rounded; empty for all.
        exclude: patterns of modules that compute in floating point.
        tables: the patterns of `special` that fit embeddings and no layer.
    """

    usual: Choice
    special: Mapping[str, Choice | None]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    tables: frozenset[str] = frozenset()

    def of(self, layer: fx.Node) -> Choice | None:
        """Returns the choice for a layer; None for floating point."""
        paths = layer.meta.get("module", ""), place_of(layer)
        if any(matches(path, self.exclude) for path in paths):
            return None
        if self.include and not any(matches(path, self.include) for path in paths):
            return None
        for pattern, choice in self.special.items():
            if any(matches(path, [pattern]) for path in paths):
                return choice
        return self.usual

    @property
    def all(self) -> list[Choice]:
        """All choices for layers, the usual one first."""
        special = (choice for pattern, choice in self.special.items() if pattern not in self.tables)
        return [self.usual, *(choice for choice in special if choice is not None)]

    @property
    def of_tables(self) -> list[Choice]:
        """The choices that embeddings have for themselves."""
        found = (self.special[pattern] for pattern in self.special if pattern in self.tables)
        return [choice for choice in found if choice is not None]


def read_choices(graph: Graph, given: QuantizationSettings) -> Choices:
    """Reads the choices from the user's settings.

    Raises:
        PenjingError: a name is unknown, or a pattern fits no module.
    """
    include, exclude, grain = tuple(given.include), (*given.exclude, *given.in_float), given.grain
    places = weights_by_place(graph)  # a weight of the network itself has no module path, only its place
    check_patterns(graph, [pattern for pattern in (*include, *exclude, *given.per_layer) if pattern not in places])
    special = {
        pattern: None if name == FLOAT else find_choice(name, grain) for pattern, name in given.per_layer.items()
    }
    looked_up = {pattern for pattern in special if _fits_tables_alone(graph, pattern)}
    return Choices(find_choice(given.weights, grain), special, include, exclude, frozenset(looked_up))


def _fits_tables_alone(graph: Graph, pattern: str) -> bool:
    """Tells whether a pattern fits an embedding, and no layer."""
    fitting = {
        node.target in LOOKUPS
        for node in graph.program.graph.nodes
        if node.target in LAYERS | RECURRENT | LOOKUPS
        and any(matches(path, [pattern]) for path in (node.meta.get("module", ""), place_of(node)))
    }
    return fitting == {True}


def check_groups(graph: Graph, layers: Iterable[fx.Node], choice_of: Callable[[fx.Node], Choice | None]) -> None:
    """Makes sure that the size of a group divides the number of weights per channel, in each layer with groups.

    Raises:
        PenjingError: the size doesn't in some layers; the message names them all with the sizes of their channels.
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
