"""The table of forms: the ops by which factors are executed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penjing.factorization.decompositions import FactorLayer
from penjing.graph import Graph
from penjing.registry import Entry, Registry

Form = Callable[[Graph, Sequence[str], Sequence[FactorLayer]], None]
"""Changes the chain of layers that stands for factors, given the names of the chain's weights and the factors."""


@dataclass(frozen=True, kw_only=True)
class FormEntry(Entry[Form]):
    """A registered form.

    Attributes:
        grouped: whether it can execute factors with a kernel for each channel.
    """

    grouped: bool = True


forms = Registry("form", FormEntry)
