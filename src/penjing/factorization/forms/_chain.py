"""Factors as layers one behind the other."""

from collections.abc import Sequence

from penjing.factorization.decompositions import FactorLayer
from penjing.factorization.forms._registry import forms
from penjing.graph import Graph


@forms.register(source="Denton et al., 2014")
def chain(graph: Graph, weights: Sequence[str], factors: Sequence[FactorLayer]) -> None:
    """Convolutions and linear layers one behind the other, as they are written at first."""
