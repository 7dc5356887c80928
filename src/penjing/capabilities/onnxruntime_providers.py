"""What ONNX Runtime's other providers can do.

Only Qualcomm's is told to compute in integers: its documentation asks for the pairs of quantise and dequantise ops that the CPU
provider fuses too, so whatever it leaves to the CPU stays in integers there. The others are taken to compute in floating point:
CUDA's provider has no integer kernels for such pairs, Core ML's takes none of the pairs, and TensorRT's takes those of int8 with
zero points of zero alone.
"""

from dataclasses import replace

from penjing.capabilities._records import Capabilities, Placement
from penjing.capabilities.onnxruntime import ONNXRUNTIME

_CPU = replace(ONNXRUNTIME, name="onnxruntime:cpu")

_QNN = replace(
    ONNXRUNTIME,
    name="onnxruntime:qnn",
    # The ranges of activations must be known before the run, and groups of weights have no kernel.
    placement=replace(ONNXRUNTIME.placement, dynamic=frozenset()),
    numbers=replace(ONNXRUNTIME.numbers, dynamic_weights={}, dynamic_groups=frozenset()),
)

_IN_FLOAT = Placement(
    layers={},
    float_output=frozenset(),
    weights_alone=ONNXRUNTIME.placement.weights_alone,
    integer={},
    same={},
    clips={},
    bounded={},
    gates=frozenset(),
)


def in_float(name: str) -> Capabilities:
    """Returns the record of a provider that computes in floating point, and dequantises weights that are stored in few bits."""
    numbers = replace(ONNXRUNTIME.numbers, activations={}, weights={}, dynamic_weights={}, dynamic_groups=frozenset())
    return replace(ONNXRUNTIME, name=name, placement=_IN_FLOAT, numbers=numbers)


PROVIDERS = (
    _CPU,
    in_float("onnxruntime:cuda"),
    in_float("onnxruntime:tensorrt"),
    in_float("onnxruntime:coreml"),
    _QNN,
)
