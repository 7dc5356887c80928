"""Rank rules, one per file: each chooses the ranks of a layer."""

from penjing.factorization.rank_rules import _energy, _ratio, _speedup, _vbmf  # noqa: F401  registers
from penjing.factorization.rank_rules._registry import ChosenRule, find, rank_rules
from penjing.factorization.rank_rules._speedup import k_max

__all__ = ["ChosenRule", "find", "k_max", "rank_rules"]
