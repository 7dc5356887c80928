"""The table of corrections."""

from collections.abc import Callable, Sequence

from penjing.registry import Registry

# A correction changes the graph that it is given and returns the places (module paths) of its changes; it raises a
# `PenjingError` where there is nothing to correct. Its trait "stage" says when and how it is called:
#   "float": before rounding, on the float graph with folded batch norms: correction(graph, data)
#   "quantized": after rounding: correction(graph, reference, data), where `reference` is the float graph that was rounded,
#       with the same node names.
Correction = Callable[..., tuple[str, ...]]

AUTO = "auto"  # the name for `shrunk_statistics`, which takes samples instead of data and so isn't in the table

corrections: Registry[Correction] = Registry("correction")


def of_stage(names: Sequence[str], stage: str) -> list[Correction]:
    """Returns the named corrections that belong to a stage, in the given order.

    Raises:
        PenjingError: an unknown name.
    """
    entries = [corrections[name] for name in names]
    return [entry.function for entry in entries if entry.traits["stage"] == stage]
