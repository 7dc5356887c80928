"""What a report tells of how the delivered file is used."""

import json
from pathlib import Path
from typing import Any

from penjing.graph import Graph
from penjing.targets import find_target, runtime_of, targets

BESIDE_THE_RUNTIME = ("numpy", "pillow")  # what the delivered script needs


def usage(out: Path, small: Graph, target: str) -> dict[str, Any]:
    """Returns the file's name and inputs, what the delivered script needs, and whether it takes photos.

    Args:
        out: the folder, with everything delivered.
        small: the compressed graph.
        target: the target's name, or the address of a device with a runtime.
    """
    prepared, examples = out / "preprocess.json", out / "examples.npz"
    beside = [name for name in find_target(target).beside if (out / name).is_file()]
    return {
        "file": f"model{find_target(target).suffix}",
        "packages": [targets[runtime_of(target)].packages[0], *BESIDE_THE_RUNTIME],
        "photos": prepared.is_file() and json.loads(prepared.read_text()) is not None,
        "examples": examples.name if examples.is_file() else None,
        "beside": beside,
        "inputs": [
            {
                "name": one.name,
                "shape": [None if axis in one.dynamic else size for axis, size in enumerate(one.shape)],
                "dtype": str(one.dtype).removeprefix("torch."),
            }
            for one in small.inputs
        ],
    }
