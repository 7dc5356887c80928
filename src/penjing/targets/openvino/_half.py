"""Stores the weights of OpenVINO's pair of files in 16 bits where these hold them exactly, each with a Convert behind it."""

import tempfile
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from penjing.targets._half import as_half
from penjing.targets.openvino._lower import save
from penjing.targets.openvino._session import read


def store_half(path: Path) -> None:
    """Rewrites both files, given the path of the `.xml` file. OpenVINO widens the weights when it compiles the model."""
    model = read(path)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_output_element_type(0) != ov.Type.f32:
            continue
        small = as_half(np.array(node.data))
        if small is None:
            continue
        readers = list(node.output(0).get_target_inputs())
        narrow = opset.constant(small, ov.Type.f16, name=f"{node.get_friendly_name()}_float16")
        wide = opset.convert(narrow, "f32", name=f"{node.get_friendly_name()}_widened")
        for reader in readers:
            reader.replace_source_output(wide.output(0))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # the model reads its weights from the old file
        made = Path(folder, path.name)
        save(model, made)
        del model
        for suffix in (".xml", ".bin"):
            made.with_suffix(suffix).replace(path.with_suffix(suffix))
