"""Counts the zeros that pruning left, and tells which of them make the target's runtime faster or smaller."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing.capabilities import Capabilities
from penjing.graph import Graph
from penjing.pruning.zeros import zeros

CHUNK = 2**20  # bytes of a file that are read at a time


def zeros_on(target: Capabilities, graph: Graph, files: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Returns the part of `report.json` about masked weights.

    Args:
        target: the target, which knows what zeros bring.
        graph: the compressed graph; its masked weights are exact zeros in the lowered file, too.
        files: the lowered files of both sides; where there are zeros, their compressed sizes tell what the zeros save
            when a file is sent.
    """
    places = []
    for one in zeros(graph):
        kinds = {granularity.entry.name for granularity in one.granularities}
        places.append(
            {
                "place": one.place,
                "granularity": ", ".join(granularity.name for granularity in one.granularities) or None,
                "weights": one.weights,
                "zeros": one.zeros,
                "faster": bool(kinds) and kinds <= target.zeros.skipped,
                "smaller": bool(kinds) and kinds <= target.zeros.left_out,
            }
        )
    return {
        "zeros": sum(place["zeros"] for place in places),
        "weights": sum(parameter.numel() for parameter in graph.parameters()),
        "faster": sum(place["zeros"] for place in places if place["faster"]),
        "smaller": sum(place["zeros"] for place in places if place["smaller"]),
        "why": target.zeros.why,
        "deflated_bytes": {side: sum(map(_deflated, paths)) for side, paths in files.items()} if places else None,
        "places": places,
    }


def _deflated(path: Path) -> int:
    packer, size = zlib.compressobj(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())
