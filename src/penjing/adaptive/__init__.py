"""Networks that choose their own cost while they run: several widths in one set of weights."""

from penjing.adaptive.sandwich import Sandwich, SandwichTask
from penjing.adaptive.slimmable import Slimmable

__all__ = ["Sandwich", "SandwichTask", "Slimmable"]
