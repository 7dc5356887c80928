"""ONNX Runtime's ops that multiply: the position of the weights among the inputs of each, and which compute in integers."""

CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "QLinearConv": 3, "ConvInteger": 1}
TRANSPOSED = {"ConvTranspose": 1}
PRODUCTS = {
    "Gemm": 1, "FusedGemm": 1, "MatMul": 1, "FusedMatMul": 1, "QGemm": 3, "QLinearMatMul": 3, "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1, "DynamicQuantizeMatMul": 1, "MatMulNBits": 1,
}  # fmt: skip
RECURRENT = {"LSTM", "GRU", "RNN"}
RECURRENT_MATRICES = (1, 2)
INTEGER = {
    "QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
}  # fmt: skip
