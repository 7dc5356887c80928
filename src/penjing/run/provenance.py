"""Records a result's provenance: versions, machine, command, and SHA-256 hashes of the input and output files."""

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from penjing.files import sha256
from penjing.targets import processor


def provenance(inputs: Mapping[str, str], settings: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Returns the report's `provenance`.

    Args:
        inputs: SHA-256 of the files that the model came from, by a name for each file.
        settings: the run's settings; `model` is the hash of the captured graph, `data` the text that identifies the data.
        out: the folder with the result.
    """
    data = hashlib.sha256(str(settings["data"]).encode(errors="surrogateescape")).hexdigest()
    return {
        **environment(),
        "inputs": {**inputs, "captured_model": settings["model"], "data_identity": data},
        "outputs": {path.name: sha256(path) for path in sorted(out.glob("model.*"))},
    }


def _on_command_line() -> bool:
    program = Path(sys.argv[0])
    return program.stem == "penjing" or program.parts[-2:] == ("penjing", "__main__.py")


def environment() -> dict[str, Any]:
    """Returns the versions and the machine for the report's provenance."""
    packages = ("penjing", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "torch_threads": torch.get_num_threads(),
        },
        "command": shlex.join(["penjing", *sys.argv[1:]]) if _on_command_line() else None,
    }
