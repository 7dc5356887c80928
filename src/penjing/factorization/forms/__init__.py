"""Forms, one per file: how the factors of a layer are executed."""

from penjing.factorization.forms import _chain, _unfold  # noqa: F401  registers
from penjing.factorization.forms._registry import forms

__all__ = ["forms"]
