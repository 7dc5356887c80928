"""The ops of ONNX's own domain of classical models that networks from scikit-learn have around them."""

import numpy as np
import torch
from torch import Tensor

from penjing.importing.onnx.node import Form, Node, no_form
from penjing.importing.onnx.ops.table import form


@form("ai.onnx.ml.ArrayFeatureExtractor")
def array_feature_extractor(node: Node) -> Form:
    """Entries of the last axis by their places: the labels of classes."""
    table = node.constant(0)
    if table is not None and table.dtype.kind not in "fiub":
        raise no_form(node, "its labels are texts, which no tensor holds")
    return node.function(lambda x, index: x.index_select(-1, index.reshape(-1)))


@form("ai.onnx.ml.Scaler")
def scaler(node: Node) -> Form:
    """Features less an offset, times a scale."""
    offset, scale = (torch.tensor(np.array(node.attribute(name), np.float32)) for name in ("offset", "scale"))

    def compute(x: Tensor) -> Tensor:
        return (x.float() - offset) * scale

    return node.function(compute, node.tensor(0))
