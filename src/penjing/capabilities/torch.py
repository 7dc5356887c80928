"""What PyTorch alone does with a `.pt2` file: it runs the graph op by op, quantise and dequantise ops too.

So nothing is multiplied in integers: a pair of quantise and dequantise ops is two more ops to run, and all other ops compute
in floating point. Weights are stored as integers all the same, and dequantised at each run.
"""

from penjing.capabilities._records import Capabilities, Numbers, Placement, Zeros
from penjing.graph.ops import LAYERS, LOOKUPS

_INTEGERS = {"intN": 16, "uintN": 16, "power_of_two": 16, "ternary": 0, "binary": 0}
_TABLES = {"intN": 8, "uintN": 8, "power_of_two": 8}
_ANY = {**_INTEGERS, "codebook": 256}

TORCH = Capabilities(
    name="torch",
    placement=Placement(
        layers={},
        float_output=frozenset(),
        weights_alone=dict.fromkeys(LAYERS, lambda node: True),
        integer={},
        same={},
        clips={},
        bounded={},
        gates=frozenset(),
        tables=dict.fromkeys(LOOKUPS, lambda node: True),
    ),
    numbers=Numbers(
        preferred="uint8",
        activations={},
        weights={},
        weights_alone={"tensor": _ANY, "channel": _ANY, "group": _INTEGERS},
        tables=dict.fromkeys(("tensor", "channel", "group"), _TABLES),
        stored=(8, 16, 32),  # tensors have no smaller type
    ),
    channel_multiples=(16, 8),  # oneDNN's kernels block channels by these
    zeros=Zeros(
        skipped=frozenset(),
        left_out=frozenset(),
        why="PyTorch multiplies by every weight, zero or not, and a .pt2 file stores every weight.",
    ),
)
