"""Notes that a lowered file keeps beside its model: damaged ones are told as such, whichever target wrote them."""

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import penjing as pj
from penjing.errors import PenjingError
from penjing.targets import available, lower, open_artifact
from penjing.targets.onnx import METADATA
from penjing.targets.torch._session import NOTES

TWO = pytree.treespec_dumps(pytree.tree_structure((0, 0)))
SUFFIXES = {"litert": ".tflite", "onnxruntime": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@pytest.fixture(scope="module", params=SUFFIXES)
def file(request, tmp_path_factory):
    if request.param not in {one.name for one in available() if one.usable}:
        pytest.skip(f"{request.param} isn't installed")
    graph = pj.capture(nn.Linear(4, 3), torch.randn(5, 4))
    return lower(graph, request.param, tmp_path_factory.mktemp("notes") / f"m{SUFFIXES[request.param]}")


def noted(file, folder, text):
    """Returns a copy of a file with other notes."""
    copy = folder / file.path.name
    if file.target == "openvino":
        import openvino as ov

        model = ov.Core().read_model(file.path)
        model.set_rt_info(text, METADATA)
        ov.save_model(model, copy, compress_to_fp16=False)
    elif file.target == "litert":
        from penjing.targets.litert._file import IDENTIFIER, Builder, read

        model = read(file.path.read_bytes())
        model.buffers[model.metadata[0].buffer].data = np.frombuffer(text.encode(), np.uint8)
        builder = Builder(1024)
        builder.Finish(model.Pack(builder), IDENTIFIER)
        copy.write_bytes(bytes(builder.Output()))
    elif file.target == "torch":
        torch.export.save(torch.export.load(file.path), copy, extra_files={NOTES: text})
    else:
        model = onnx.load(file.path)
        next(entry for entry in model.metadata_props if entry.key == METADATA).value = text
        onnx.save(model, copy)
    return copy


def test_notes_are_read_as_they_were_written(file, tmp_path):
    given = {"example": [7, 4], "range": [-2, 3.5], "whole": True}
    (read,) = open_artifact(noted(file, tmp_path, json.dumps({"inputs": [given], "later": 1})), file.target).inputs
    assert read.shape in ((None, 4), (1, 4)) and read.example == (7, 4)
    assert (read.ranges.low, read.ranges.high, read.ranges.whole) == (-2, 3.5, True)


def test_a_file_without_notes_is_opened(file, tmp_path):
    (read,) = open_artifact(noted(file, tmp_path, "{}"), file.target).inputs
    assert read.shape in ((None, 4), (1, 4)) and read.example[1] == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "'notes' must be an object"),
        ('{"inputs": 3}', "'notes.inputs' must be a list, and is 3"),
        ('{"inputs": [3]}', "'notes.inputs[0]' must be an object, and is 3"),
        ('{"inputs": [], "inputs": []}', "the key 'inputs' stands twice"),
        ('{"inputs": [{}, {}]}', "they tell of 2 inputs, and the model has 1"),
        ('{"inputs": [{"example": [2.5, 4]}]}', "'example[0]' must be a whole number, and is 2.5"),
        ('{"inputs": [{"example": [2, 4, 4]}]}', "doesn't fit an input of 2 axes"),
        ('{"inputs": [{"example": [-2, 4]}]}', "doesn't fit an input of 2 axes"),
        ('{"inputs": [{"range": [0, "9"]}]}', "'range[1]' must be a number, and is '9'"),
        ('{"inputs": [{"range": [9, 0]}]}', "an input ranges from 9 to 0"),
        ('{"inputs": [{"range": [0, NaN]}]}', "NaN is no number of JSON"),
        ('{"outputs": 3}', "'notes.outputs' must be a string or null, and is 3"),
        ('{"modules": {"linear": 3}}', "'notes.modules.linear' must be a string, and is 3"),
    ],
)
def test_damaged_notes_are_told(file, tmp_path, text, said):
    path = noted(file, tmp_path, text)
    with pytest.raises(PenjingError) as caught:
        open_artifact(path, file.target)
    assert str(caught.value).startswith(f"The notes in {path} are damaged: ") and said in str(caught.value)


@pytest.mark.parametrize(
    ("nested", "said"), [("{", "they can't be read"), (TWO, "they nest 2 outputs, and the model has 1")]
)
def test_a_nesting_that_does_not_fit_the_model_is_told(file, tmp_path, nested, said):
    if file.target == "torch":
        pytest.skip("a .pt2 file holds the nesting itself")
    with pytest.raises(PenjingError, match=rf"The notes in .* are damaged: {said}"):
        open_artifact(noted(file, tmp_path, json.dumps({"outputs": nested})), file.target)
