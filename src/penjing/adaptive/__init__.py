"""Networks that choose their own cost while they run: several widths in one set of weights, exits on the way."""

from penjing.adaptive.exits import Exits, Point
from penjing.adaptive.sandwich import Sandwich, SandwichTask
from penjing.adaptive.slimmable import Slimmable

__all__ = ["Exits", "Point", "Sandwich", "SandwichTask", "Slimmable"]
