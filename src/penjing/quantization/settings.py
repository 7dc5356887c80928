"""The settings of a quantisation as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from penjing.capabilities import DEFAULT, Capabilities


@dataclass(frozen=True)
class QuantizationSettings:
    """The arguments of `quantize`, which documents them, as the user gave them: none is checked yet."""

    weights: str = "int8"
    activations: str | None = "auto"
    observer: str = "minmax"
    grain: str = "auto"
    rounding: str = "nearest"
    corrections: str | Sequence[str] = "auto"
    per_layer: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    exclude: Sequence[str] = ()
    target: Capabilities | str = DEFAULT
    placement: str = "fastest"
    in_float: Sequence[str] = ()
    simulate: bool = False
    seed: int = 0
    include: Sequence[str] = ()

    def arguments(self) -> dict[str, Any]:
        """Returns the settings by name, as keyword arguments of `quantize`."""
        return {one.name: getattr(self, one.name) for one in fields(self)}
