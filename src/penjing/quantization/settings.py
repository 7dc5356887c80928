"""What a quantisation is asked for, as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from penjing.capabilities import DEFAULT, Capabilities


@dataclass(frozen=True)
class Settings:
    """The arguments of `quantize`, which documents them, as they were given: nothing of them is checked yet."""

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
