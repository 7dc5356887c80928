"""Ops of quantised files, which have no form: a network is quantised after it was read."""

from penjing.errors import PenjingError
from penjing.importing.onnx.node import Form, Node
from penjing.importing.onnx.ops.table import form


@form(
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    *(
        f"com.microsoft.{op}"
        for op in (
            "QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearAveragePool", "QLinearGlobalAveragePool",
            "QLinearConcat", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "QGemm", "QAttention", "MatMulNBits",
            "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
        )
    ),
)  # fmt: skip
def quantised(node: Node) -> Form:
    """Refuses.

    Raises:
        PenjingError: always.
    """
    raise PenjingError(
        f"The file is quantised already: node '{node.name}' is a {node.op}. Give the float file that it was made from; "
        "penjing.quantize then quantises the network for the target that you name."
    )
