"""The settings of a pruning, as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from penjing.pruning.allocations import Rounding


@dataclass(frozen=True)
class PruningSettings:
    """The arguments of `prune` other than the graph and the data, unchecked; `prune` documents them."""

    amount: float | Mapping[str, float] | None = None
    criterion: str = "l2"
    granularity: str = "filter"
    allocation: str = "uniform"
    round_to: Rounding = None
    min_channels: int = 1
    units: str = "auto"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    batches: int = 16
    seed: int = 0

    def arguments(self) -> dict[str, Any]:
        """Returns the settings by name, as `prune` and `Gradual` take them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def where(self) -> dict[str, Sequence[str]]:
        """The patterns of module paths, by name."""
        return {"include": self.include, "exclude": self.exclude}
