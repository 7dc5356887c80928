import numpy as np
import torch
from torch import nn

from penjing.data import Data
from penjing.graph import capture
from penjing.run.delivery import deliver, delivered_names
from penjing.tasks import Classification


def data(**given):
    return Data(None, None, [(torch.zeros(2, 4), torch.zeros(2))], Classification(2), **given)


def test_what_new_data_does_not_have_is_not_left_over_from_an_earlier_run(tmp_path):
    graph = capture(nn.Linear(4, 2), torch.zeros(2, 4))
    pictures = {"x": np.zeros((2, 4, 4), np.uint8), "y": np.zeros(2, np.int64)}
    rich = data(classes=("a", "b"), validation_files=(("a/1.png", 0),), examples=pictures)
    deliver(graph, rich, "onnxruntime", tmp_path)
    assert (tmp_path / "validation.csv").read_text() == "name,label\na/1.png,0\n"
    assert (tmp_path / "classes.txt").read_text() == "a\nb\n"
    deliver(graph, data(), "onnxruntime", tmp_path)
    always = {"run.py", "model.penjing", "plan.json", "preprocess.json"}
    assert {path.name for path in tmp_path.iterdir()} == always
    written_elsewhere = {"model.onnx", "report.json", "report.html"}
    assert set(delivered_names(data(), (".onnx",))) == always | written_elsewhere
    more = {"classes.txt", "validation.csv", "examples.npz"}
    assert set(delivered_names(rich, (".onnx",))) == always | written_elsewhere | more
