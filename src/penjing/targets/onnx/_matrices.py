"""Linear layers, the integer matrices that they read, and the form in which MatMulNBits stores such a matrix."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from penjing.targets.onnx._nodes import MICROSOFT, constant, initializer, like, replace

BLOCKS = (16, 32, 64, 128, 256)  # weights per block for which MatMulNBits has kernels
SCALE_BYTES = 4  # bytes of a float32 scale


@dataclass(frozen=True)
class Stored:
    """A weight `(rows, columns)` as integers, where `real = scale · (code − zero)`.

    Attributes:
        codes: the integers, `(rows, columns)`.
        scale: `(rows, groups)`, one for each run of columns; `(rows, 1)` or `(1, 1)` where all columns share it.
        zero: the zero points, in the shape of `scale`.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray

    @property
    def bits(self) -> int:
        """Bits that hold every code: 4, 8 or 16."""
        kind = np.iinfo(self.codes.dtype)
        low = -8 if kind.min < 0 else 0
        return 4 if kind.bits == 8 and low <= self.codes.min() and self.codes.max() <= low + 15 else kind.bits

    @property
    def group(self) -> int:
        """How many columns share a scale; 0 for all."""
        return self.codes.shape[1] // self.scale.shape[1] if self.scale.shape[1] > 1 else 0


def read_matrix(node: ir.Node) -> Stored | None:
    """Returns the weight that a node dequantises if it is a matrix with its outputs on axis 0."""
    codes, scale = constant(node.inputs[0]), constant(node.inputs[1])
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if codes is None or scale is None or codes.ndim != 2 or not codes.size:
        return None
    if scale.size > 1 and node.attributes.get_int("axis", 1) != (1 if scale.ndim == 2 else 0):
        return None
    shape = scale.shape if scale.ndim == 2 else (-1, 1)
    zero = np.zeros(1, np.int64) if zero is None else zero.astype(np.int64)
    return Stored(codes, scale.reshape(shape), np.broadcast_to(zero.reshape(-1), scale.size).reshape(shape))


def products_of(weight: ir.Node) -> list[ir.Node]:
    """Returns the linear layers that read a dequantised weight."""
    found = []
    for use in weight.outputs[0].uses():
        node = use.node
        if node.op_type == "Gemm" and use.idx == 1 and _is_plain(node):
            found.append(node)
        elif node.op_type == "Transpose" and list(node.attributes.get_ints("perm", (1, 0))) == [1, 0]:
            found += [u.node for u in node.outputs[0].uses() if u.node.op_type == "MatMul" and u.idx == 1]
    return found


def _is_plain(gemm: ir.Node) -> bool:
    number = gemm.attributes.get_float
    return (
        number("alpha", 1.0) == number("beta", 1.0) == 1.0
        and gemm.attributes.get_int("transB", 0) == 1
        and not gemm.attributes.get_int("transA", 0)
        and (len(gemm.inputs) < 3 or gemm.inputs[2] is None or _is_vector(gemm.inputs[2]))
    )


def _is_vector(value: ir.Value) -> bool:
    array = constant(value)
    return array is not None and array.ndim == 1


def use_blocks(
    graph: ir.Graph, product: ir.Node, x: ir.Value | None, codes: ir.Value, weight: Stored, accuracy: int
) -> None:
    """Replaces a linear layer by MatMulNBits.

    Args:
        graph: the graph, to which the new constants are added.
        product: the layer.
        x: the layer's input.
        codes: the value that holds the stored weight; the new constants are named after it.
        weight: the weight, of at most 8 bits, in groups that a block size divides.
        accuracy: accuracy level of the op, which says in which precision it multiplies the activations.
    """
    rows, columns = weight.codes.shape
    block = _block(columns, weight.group)
    blocks, middle = -(-columns // block), 2 ** (weight.bits - 1)
    shift = middle if weight.codes.dtype == np.int8 else 0
    zero = _by_block(weight.zero + shift, rows, blocks).astype(np.uint8)
    # The last block is filled up with zeros.
    filled = np.repeat(zero, block, 1)
    filled[:, :columns] = weight.codes.astype(np.int64) + shift
    pack = _in_pairs if weight.bits == 4 else np.ascontiguousarray
    packed = initializer(graph, f"{codes.name}_packed", pack(filled).reshape(rows, blocks, -1))
    scale = initializer(graph, f"{codes.name}_blocks", _by_block(weight.scale, rows, blocks))
    # Without zero points the op uses the middle of the codes.
    zeros = None if (zero == middle).all() else initializer(graph, f"{codes.name}_zeros", pack(zero))
    bias = product.inputs[2] if len(product.inputs) > 2 else None
    attributes = {"K": columns, "N": rows, "bits": weight.bits, "block_size": block, "accuracy_level": accuracy}
    inputs = [x, packed, scale, zeros, None, bias]
    replace(graph, product, [like(product, "MatMulNBits", inputs, attributes, MICROSOFT)])


def fits_blocks(weight: Stored) -> bool:
    """Tells whether a block size of MatMulNBits divides the weight's groups."""
    return weight.group % BLOCKS[0] == 0


def _block(columns: int, group: int) -> int:
    """Returns the block size, among those that divide a group, that takes the fewest bytes; among equal ones, the largest."""
    fitting = [block for block in BLOCKS if group % block == 0]
    return min(reversed(fitting), key=lambda block: -(-columns // block) * (block // 2 + SCALE_BYTES))


def _by_block(values: np.ndarray, rows: int, blocks: int) -> np.ndarray:
    """Repeats each group's value for every block in the group."""
    return np.repeat(np.broadcast_to(values, (rows, values.shape[1])), blocks // values.shape[1], 1)


def _in_pairs(codes: np.ndarray) -> np.ndarray:
    """Packs two columns into each byte, the first in its lower half."""
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    result: np.ndarray = even[:, 0::2] | (even[:, 1::2] << 4)
    return result
