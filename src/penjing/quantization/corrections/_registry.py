"""The table of corrections."""

from collections.abc import Callable, Sequence

from penjing.registry import Registry

# Each entry's trait "stage" says when it is applied and how it is called; either changes the graph that it is given and
# returns the places (module paths) that it changed, and raises a `PenjingError` where it finds nothing that it could do:
#   "float": before anything is rounded, on the folded float graph: correction(graph, data)
#   "quantized": at the end: correction(graph, reference, data), where `reference` is the float graph that was rounded,
#       its nodes named alike.
Correction = Callable[..., tuple[str, ...]]

AUTO = "auto"  # stands for `shrunk_statistics`, which is given its samples and so isn't in the table

corrections: Registry[Correction] = Registry("correction")


def of_stage(names: Sequence[str], stage: str) -> list[Correction]:
    """Returns those of the named corrections that belong to a stage, in the order given.

    Raises:
        PenjingError: an unknown name.
    """
    entries = [corrections[name] for name in names]
    return [entry.function for entry in entries if entry.traits["stage"] == stage]
