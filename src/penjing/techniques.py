"""What a technique is to a planner: it proposes options for a graph, and carries out those that were taken."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from penjing.capabilities import Capabilities
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Graph, Option
from penjing.registry import Entry, Registry

Stage = Literal["structure", "numbers"]


@dataclass(frozen=True)
class Scope:
    """Where a technique may work.

    Attributes:
        include: patterns of module paths; if given, only channels and weights of matching modules are pruned or factorised.
        exclude: patterns of module paths that stay as they are, and compute in floating point.
        units: what a unit of attention is, "heads", "features" or "auto".
        min_channels: how many units each group of channels keeps at least.
        keep_channels: patterns of module paths that are neither pruned nor factorised; they may be rounded.
        keep_float: patterns of module paths that compute in floating point; they may be pruned or factorised.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    units: str = "auto"
    min_channels: int = 1
    keep_channels: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()

    @property
    def unpruned(self) -> tuple[str, ...]:
        """Patterns of the modules whose channels and weights all stay."""
        return (*self.exclude, *self.keep_channels)

    @property
    def unremoved(self) -> tuple[str, ...]:
        """Patterns of the modules that don't go with a residual branch: a layer that stays in floating point is there."""
        return (*self.unpruned, *self.keep_float)

    @property
    def unrounded(self) -> tuple[str, ...]:
        """Patterns of the modules that compute in floating point."""
        return (*self.exclude, *self.keep_float)


class Technique(ABC):
    """A technique whose choices are settled. Each technique is a class in a file of its own, registered in `techniques`.

    Options of one technique whose settings differ only in the keys of `per_place` form a level. They are meant to be taken
    together: such as one width for all channels, or one grid for all weights.

    Attributes:
        stage: "structure" for a technique that comes before recovery, "numbers" for one that comes with it or after it.
        per_place: the keys of a setting that differ from place to place within one level.
    """

    stage: ClassVar[Stage]
    per_place: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def propose(self, graph: Graph, data: Data | None, capabilities: Capabilities, scope: Scope) -> Iterable[Option]:
        """Yields options for the graph, level by level; none where the technique can do nothing.

        An option that removes parameters says in `found["saves_params"]` how many.

        Args:
            graph: the original.
            data: the data from which evidence is taken; None where there is none.
            capabilities: what the target can do.
            scope: where the technique may work.
        """

    def choices(self, graph: Graph, data: Data | None, capabilities: Capabilities, scope: Scope) -> Iterable[Option]:
        """Yields options that a solver may take or leave place by place; by default, those of `propose`.

        Options at different places can be taken together, and of those at one place one at most. The arguments are those of
        `propose`.
        """
        return self.propose(graph, data, capabilities, scope)

    def settled(self, graph: Graph, options: Sequence[Option]) -> list[Option]:
        """Returns options that were chosen place by place, in the order in which `apply` carries them out.

        Where one of them changes what the place of a later one is called, the later one has the new name.
        """
        return list(options)

    @abstractmethod
    def apply(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Returns a graph in which the options are carried out; `graph` stays as it was.

        The same graph, options and data give the same weights, bit for bit. The returned graph's `plan` lists the options.

        Raises:
            PenjingError: the graph has no place that an option names, or an option can't be carried out; nothing is applied
                then.
        """

    def draft(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph | None:
        """Returns a graph as fast and as large as that of `apply`, for measuring; its weights may differ if that saves time.

        None where the options, though they were proposed, turn out to be useless for this graph; the log says why.
        """
        return self.apply(graph, options, data)

    def damage(self, graph: Graph, options: Sequence[Option], data: Any, capabilities: Capabilities) -> list[float]:
        """Returns how much each option alone changes the outputs: the power of the outputs' error over the outputs' power.

        Solvers that choose option by option ask for this, and add up the damages of options at different places.

        Raises:
            PenjingError: the technique doesn't measure damage.
        """
        raise PenjingError(
            f"{type(self).__name__} doesn't measure what its options cost the outputs, so this solver can't choose among "
            "them: the solver 'widest_that_fits' can."
        )

    def leave(self, options: Sequence[Option], paths: Collection[str]) -> Sequence[Option]:
        """Returns options that leave the modules at these paths alone, since they were measured to be faster unchanged."""
        return [option for option in options if option.place.path not in paths]


@dataclass(frozen=True, kw_only=True)
class TechniqueEntry(Entry[Callable[..., Technique]]):
    """A registered technique: `register` decorates a class.

    The class's arguments, all of which have defaults, are the technique's choices, such as a criterion or a grid.
    """


techniques = Registry("technique", TechniqueEntry)


def find(name: str, choices: dict[str, Any] | None = None) -> Technique:
    """Returns a technique with these choices.

    Raises:
        PenjingError: there is no technique of that name, or the technique has no such choice.
    """
    entry = techniques[name]
    try:
        return entry.function(**(choices or {}))
    except TypeError as error:
        raise PenjingError(f"The technique '{name}' can't be had with {choices!r}: {error}.") from error


def level(option: Option, technique: Technique) -> tuple[Any, ...]:
    """Returns a key that is equal for all options of one level of a technique."""
    shared = {key: value for key, value in option.setting.items() if key not in technique.per_place}
    return option.technique, repr(sorted(shared.items()))
