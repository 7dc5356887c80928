"""The table of granularities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from penjing.errors import PenjingError, unknown_name
from penjing.registry import Entry, Registry

Granularity = Callable[..., Any]
"""What stands or falls together. The trait `removes` says what goes, and with it what the function is:

- "channels": from evidence, the saliency of weights and a criterion's last step to one `(units,)` tensor per group of the
  graph's channels. With the trait `among`, a function of a graph and its channels, only the groups that it returns count;
  the trait `units` then says how the channels are labelled.
- "branches": the same, for one group, all residual branches;
- "weights": a view. From a weight `(out_channels, in_channels, *kernel)` to `(rows, members)`, each row of which stands or
  falls together, or None where the weight has no such rows. Shapes stay, and what goes is masked. With the trait `shrink`,
  a function of a masked graph and the names of the weights, the graph then gets smaller where it can; it also returns
  what became of each weight, in words. The trait `kernels` says that it looks into kernels, so that no one wonders that
  matrices stay.

Where names hold numbers, the trait `read` makes the function's keyword arguments of what the user typed (None if that is
no such name), and `example` is one. A name may carry its own amount. The trait `stays` then says which rows stay, as the
best of a set that an amount can't express: see `Stays`. The trait `keeps` says the same of the arguments alone where it
is n of every m rows in sequence.
"""


class Stays(Protocol):
    """Which rows of weights stay, where the granularity itself knows how many."""

    def __call__(self, saliency: Sequence[Tensor], shapes: Sequence[tuple[int, ...]], **arguments: Any) -> list[Tensor]:
        """Returns, for each weight, booleans `(rows,)`.

        Args:
            saliency: of the rows of each weight, `(rows,)`, summed over their members; that of several rows is their sum.
            shapes: of the weights as the view gets them.
            arguments: those out of the name.
        """


granularities: Registry[Granularity] = Registry("granularity")


@dataclass(frozen=True)
class ChosenGranularity:
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
    def stays(self) -> Callable[[Sequence[Tensor], Sequence[tuple[int, ...]]], list[Tensor]] | None:
        """Which rows stay, where the name says how many; else an amount and an allocation do."""
        stays: Stays | None = self.entry.traits.get("stays")
        return partial(stays, **self.arguments) if stays else None

    @property
    def keeps(self) -> tuple[int, int] | None:
        """How many of how many rows in sequence stay, where the name says so."""
        keeps = self.entry.traits.get("keeps")
        return keeps(**self.arguments) if keeps else None


def find(name: str) -> ChosenGranularity:
    """Returns the granularity that `name` means, numbers included: "filter", "2:4", "block:4x4".

    Raises:
        PenjingError: there is none, or its numbers make no sense.
    """
    for entry in granularities.values():
        read = entry.traits.get("read")
        arguments = read(name) if read else ({} if name == entry.name else None)
        if arguments is not None:
            return ChosenGranularity(name, entry, arguments)
    if name in granularities:
        raise PenjingError(f"granularity='{name}' needs its numbers, as in '{granularities[name].traits['example']}'.")
    raise unknown_name("granularity", name, granularities)
