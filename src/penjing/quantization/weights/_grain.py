"""The grain: which weights of a layer share a scale: all, those of an output channel, or a group within a channel."""

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from penjing.errors import PenjingError, unknown_name

SMALLEST_GROUP = 2  # weights


@dataclass(frozen=True)
class Grain:
    """How a weight `(out_channels, …)` is divided into rows that each have a scale.

    Attributes:
        kind: "tensor", one row; "channel", one row for each output channel; "group", several rows for each channel.
        size: number of weights in a group; 0 for the other kinds.
    """

    kind: Literal["tensor", "channel", "group"]
    size: int = 0

    @property
    def name(self) -> str:
        """The name that the user types."""
        return f"group:{self.size}" if self.kind == "group" else self.kind

    @property
    def words(self) -> str:
        """The grain in words, for plans: "channel", "group of 32"."""
        return f"group of {self.size}" if self.kind == "group" else self.kind

    def fits(self, weight: Tensor) -> bool:
        """Tells whether the size of a group divides the number of each channel's weights."""
        return self.kind != "group" or weight[0].numel() % self.size == 0

    def rows(self, weight: Tensor) -> Tensor:
        """Returns the weight as `(rows, weights)`."""
        if self.kind == "tensor":
            return weight.reshape(1, -1)
        return weight.reshape(len(weight), -1) if self.kind == "channel" else weight.reshape(-1, self.size)


def find_grain(name: str) -> Grain:
    """Reads "tensor", "channel" or "group:SIZE".

    Raises:
        PenjingError: the name is none of these, or the group's size is below 2.
    """
    if name in ("tensor", "channel"):
        return Grain(name)  # type: ignore[arg-type]
    found = re.fullmatch(r"group:(\d+)", str(name))
    if found is None:
        raise unknown_name("grain", str(name), ["auto", "tensor", "channel", "group:SIZE", "group:32", "group:128"])
    if int(found[1]) < SMALLEST_GROUP:
        raise PenjingError(f"A group holds at least {SMALLEST_GROUP} weights, so '{name}' means nothing.")
    return Grain("group", int(found[1]))
