"""The table of granularities."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from penjing.prune.evidence import Evidence
from penjing.registry import Registry

Granularity = Callable[[Evidence, Mapping[str, Tensor], Callable[[Tensor], Tensor]], Any]
"""From the saliency of weights to one `(units,)` score tensor per group of things that stand or fall together.

The trait `removes` says what these are: "channels", whose groups are the graph's, or "branches", which are one group.
"""

granularities: Registry[Granularity] = Registry("granularity")
