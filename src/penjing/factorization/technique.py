"""Factorisation as a planner sees it: all layers to the same share of their multiplications, at ranks that suit the target."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

from penjing.capabilities import Capabilities
from penjing.data import Data
from penjing.factorization._carrying_out import carry_out
from penjing.factorization._proposing import options_for
from penjing.factorization.settings import FactorizationSettings
from penjing.graph import Graph, Option
from penjing.techniques import Scope, Stage, Technique, techniques

SPEEDUPS = (1.5, 2.0, 3.0, 4.0)  # factors by which the multiplications of each layer fall


@techniques.register(
    source="Denton et al., 2014; Kim et al., Compression of Deep Convolutional Neural Networks, 2016", name="factorize"
)
class Factorization(Technique):
    """Layers become chains of smaller ones, all with the same factor fewer multiplications."""

    stage: ClassVar[Stage] = "structure"
    per_place = frozenset({"method", "ranks"})

    def __init__(
        self,
        method: str = "auto",
        metric: str = "auto",
        form: str = "chain",
        speedups: Sequence[float] | None = None,
        batches: int = 16,
        seed: int = 0,
    ) -> None:
        """Takes the choices of `factorize`, and the factors by which multiplications may fall, by default `SPEEDUPS`.

        Raises:
            PenjingError: a name is unknown.
        """
        self._settings = FactorizationSettings(method, "speedup:2", metric, form, batches=batches, seed=seed)
        self._speedups = tuple(SPEEDUPS if speedups is None else speedups)

    def propose(self, graph: Graph, data: Data | None, capabilities: Capabilities, scope: Scope) -> Iterator[Option]:
        """Yields the options of one speed-up after the other."""
        for speedup in self._speedups:
            settings = replace(
                self._settings, ranks=f"speedup:{speedup:g}", target=capabilities.name, include=scope.include,
                exclude=scope.unpruned,
            )  # fmt: skip
            for option in options_for(graph, settings, data):
                if "reason" not in option.found:
                    yield replace(option, setting={**option.setting, "speedup": speedup})

    def apply(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Returns a graph in which these layers are chains."""
        return carry_out(graph, options, data)

    def draft(self, graph: Graph, options: Sequence[Option], data: Data | None) -> Graph:
        """Factorises by the weights alone: values don't change the latency."""
        return carry_out(graph, [replace(one, setting={**one.setting, "metric": "weights"}) for one in options], None)

    def leave(self, options: Sequence[Option], paths: Collection[str]) -> Sequence[Option]:
        """Returns the same options, those at these paths with the reason why their layers stay as they are."""
        return [
            replace(option, before=None, after=None, found={"reason": "slower chain"})
            if option.place.path in paths
            else option
            for option in options
        ]
