"""Low rank: layers become chains of smaller ones. Tables of decompositions, rank rules, metrics and forms."""

from penjing.factorization.decompositions import decompositions
from penjing.factorization.forms import forms
from penjing.factorization.metrics import metrics
from penjing.factorization.rank_rules import k_max, rank_rules
from penjing.factorization.settings import FactorizationSettings
from penjing.factorization.verb import factorize

__all__ = ["FactorizationSettings", "decompositions", "factorize", "forms", "k_max", "metrics", "rank_rules"]
