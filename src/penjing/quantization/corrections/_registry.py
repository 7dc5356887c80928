"""The table of corrections."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from penjing.registry import Entry, Registry

Correction = Callable[..., tuple[str, ...]]
"""Changes the graph that it is given and returns the places (module paths) of its changes.

It raises a `PenjingError` where there is nothing to correct.
"""

Stage = Literal["float", "quantized"]

AUTO = "auto"  # the name for `shrunk_statistics`, which takes samples instead of data and so isn't in the table


@dataclass(frozen=True, kw_only=True)
class CorrectionEntry(Entry[Correction]):
    """A registered correction.

    Attributes:
        stage: when and how it is called. "float": before rounding, on the float graph with folded batch norms, as
            `correction(graph, data)`. "quantized": after rounding, as `correction(graph, reference, data)`, where
            `reference` is the float graph that was rounded, with the same node names.
    """

    stage: Stage


corrections = Registry("correction", CorrectionEntry)


def of_stage(names: Sequence[str], stage: Stage) -> list[Correction]:
    """Returns the named corrections that belong to a stage, in the given order.

    Raises:
        PenjingError: an unknown name.
    """
    entries = [corrections[name] for name in names]
    return [entry.function for entry in entries if entry.stage == stage]
