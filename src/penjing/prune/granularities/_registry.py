"""The table of granularities."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penjing.errors import PenjingError, unknown_name
from penjing.registry import Entry, Registry

Granularity = Callable[..., Any]
"""What stands or falls together. The trait `removes` says what goes, and with it what the function is:

- "channels": from evidence, the saliency of weights and a criterion's last step to one `(units,)` tensor per group of the
  graph's channels;
- "branches": the same, for one group, all residual branches;
- "weights": a view. From a weight `(out_channels, in_channels, *kernel)` to `(rows, members)`, each row of which stands or
  falls together, or None where the weight has no such rows. Shapes stay, and what goes is masked.

Where names hold numbers, the trait `read` makes the function's keyword arguments of what the user typed (None if that is
no such name), and `example` is one. With the trait `keeps`, a function of these arguments, n of m rows in sequence stay:
the name then carries its own amount.
"""

granularities: Registry[Granularity] = Registry("granularity")


@dataclass(frozen=True)
class Chosen:
    """A granularity as the user typed it.

    Attributes:
        name: that text.
        entry: what is registered.
        arguments: for the entry's function, out of the text.
    """

    name: str
    entry: Entry[Granularity]
    arguments: dict[str, Any]

    @property
    def removes(self) -> str:
        """What goes: "channels", "branches" or "weights"."""
        return str(self.entry.traits["removes"])

    @property
    def keeps(self) -> tuple[int, int] | None:
        """How many of how many rows in sequence stay, where the name says so."""
        keeps = self.entry.traits.get("keeps")
        return keeps(**self.arguments) if keeps else None


def find(name: str) -> Chosen:
    """Returns the granularity that `name` means, numbers included: "filter", "2:4", "block:4x4".

    Raises:
        PenjingError: there is none, or its numbers make no sense.
    """
    for entry in granularities.values():
        read = entry.traits.get("read")
        arguments = read(name) if read else ({} if name == entry.name else None)
        if arguments is not None:
            return Chosen(name, entry, arguments)
    if name in granularities:
        raise PenjingError(f"granularity='{name}' needs its numbers, as in '{granularities[name].traits['example']}'.")
    raise unknown_name("granularity", name, granularities)
