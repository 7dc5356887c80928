"""What kernels take on trust, checked before they are called: each function knows one op's kernel.

They get the node, the arguments by name with tensors that have shapes only, and a function that tells whether two sizes are
equal. Where a kernel would read beyond a tensor if two sizes differed, equality at the example's sizes is not enough: a
stranger's graph may compute sizes that are equal there alone.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import PenjingError
from penjing.storage.admission._limits import MOST_TENSORS
from penjing.storage.admission._sizes import number, numbers

aten = torch.ops.aten
Arguments = dict[str, Any]
Same = Callable[[Any, Any], bool]
"""Tells whether two sizes are equal, whatever the free axes' sizes are."""
Check = Callable[[fx.Node, Arguments, Same], None]
CHECKS: dict[Any, Check] = {}


def trusts(*targets: Any) -> Callable[[Check], Check]:
    """Registers the check of what these ops' kernels trust."""

    def add(function: Check) -> Check:
        CHECKS.update(dict.fromkeys(targets, function))
        return function

    return add


def _require(node: fx.Node, right: bool, what: str) -> None:
    if not right:
        raise PenjingError(f"the node '{node.name}' ({node.target}): {what}")


@trusts(aten.div.Tensor_mode, aten.div.Scalar_mode, aten.divide.Tensor_mode, aten.divide.Scalar_mode)
def _truncating_division(node: fx.Node, given: Arguments, same: Same) -> None:
    """The smallest integer by −1 traps in the processor, where the quotient isn't rounded down."""
    if given["rounding_mode"] != "trunc" or any(_is_floating(given[name]) for name in ("self", "other")):
        return
    divisor = given["other"]
    if isinstance(divisor, torch.SymInt):
        right = bool(divisor.node.expr.is_nonnegative)  # a difference of sizes may be -1 at another size
    else:
        right = isinstance(divisor, int) and divisor != -1
    _require(
        node,
        right,
        "integers can only be divided by a number other than -1 when the quotient is truncated",
    )


def _is_floating(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dtype.is_floating_point or value.dtype.is_complex
    return isinstance(value, float | torch.SymFloat)


@trusts(aten.embedding_bag.default, aten.embedding_bag.padding_idx)
def _bags(node: fx.Node, given: Arguments, same: Same) -> None:
    """The kernel reads from one offset to the next without looking at them; those of equal bags are a range."""
    offsets: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("offsets")
    ranges = {aten.arange.default: None, aten.arange.start: 0, aten.arange.start_step: 0}
    right = isinstance(offsets, fx.Node) and offsets.target in ranges
    if right and offsets.target is not aten.arange.default:
        step = offsets.args[2] if len(offsets.args) > 2 else offsets.kwargs.get("step", 1)
        at_least_one = (
            step >= 1 if isinstance(step, int) else isinstance(step, fx.Node) and step.target is aten.sym_size.int
        )
        right = offsets.args[:1] == (0,) and at_least_one
    _require(node, right, "its offsets must be those of bags of equal sizes: give it indices with two axes")


@trusts(aten.scaled_dot_product_attention.default)
def _attention(node: fx.Node, given: Arguments, same: Same) -> None:
    """The fast kernel reads as many keys as there are values."""
    key, value = given["key"], given["value"]
    right = key.dim() >= 2 and value.dim() >= 2 and same(key.shape[-2], value.shape[-2])
    _require(node, right, "it must have as many keys as values, at every size of the free axes")


_GATES = {aten.lstm.input: 4, aten.gru.input: 3, aten.rnn_tanh.input: 1, aten.rnn_relu.input: 1}


@trusts(*_GATES)
def _recurrent(node: fx.Node, given: Arguments, same: Same) -> None:
    """The fast kernels take the weights' sizes from the first of them."""
    weights, states = given["params"], given["hx"]
    states = list(states) if isinstance(states, list | tuple) else [states]
    directions = 2 if given["bidirectional"] else 1
    layers, biases = given["num_layers"], 2 if given["has_biases"] else 0
    _require(node, given["input"].dim() in (2, 3), "a sequence has three axes")
    _require(node, len(states) == (2 if node.target is aten.lstm.input else 1), "another number of states")
    _require(node, isinstance(layers, int), "the number of layers must be a constant")
    count = layers * directions
    per_cell = len(weights) // count if count and len(weights) % count == 0 else 0
    projected = node.target is aten.lstm.input and per_cell == 2 + biases + 1
    _require(node, projected or per_cell == 2 + biases, "another number of weights than its layers have")
    shapes = [tuple(weight.shape) for weight in weights]
    _require(node, all(type(size) is int for shape in shapes for size in shape), "its weights' sizes must be constants")
    hidden = shapes[1][0] // _GATES[node.target] if shapes[1] else 0
    out = shapes[per_cell - 1][0] if projected and shapes[per_cell - 1] else hidden
    sequence = tuple(given["input"].shape)
    width = sequence[-1]
    for cell in range(count):
        wanted = [(_GATES[node.target] * hidden, width), (_GATES[node.target] * hidden, out)]
        wanted += [(_GATES[node.target] * hidden,)] * biases + ([(out, hidden)] if projected else [])
        found = shapes[cell * per_cell : (cell + 1) * per_cell]
        fits = type(width) is int and found == wanted
        _require(node, fits, f"the weights of its cell {cell} have other shapes than {wanted}")
        if (cell + 1) % directions == 0:
            width = out * directions
    batch = sequence[0 if given["batch_first"] else 1 : -1][:1] if len(sequence) == 3 else ()
    for state, size in zip(states, (out, hidden), strict=False):
        shape, wanted_shape = tuple(state.shape), (count, *batch, size)
        fits = len(shape) == len(wanted_shape) and all(map(same, shape, wanted_shape))
        _require(node, fits, f"a state has the shape {shape}, not {wanted_shape} at every size of the free axes")


@trusts(aten._weight_norm.default)
def _weight_norm(node: fx.Node, given: Arguments, same: Same) -> None:
    """The kernel reads one norm for each index of the axis."""
    v, g, axis = given["v"], given["g"], given["dim"]
    _require(node, -v.dim() <= axis < v.dim(), "an axis that the weight doesn't have")
    wanted = [1] * v.dim()
    wanted[axis] = v.shape[axis]
    fits = g.dim() == v.dim() and all(map(same, g.shape, wanted))
    _require(node, fits, f"its norms must have the shape {tuple(wanted)}")


@trusts(aten.unbind.int, aten.split.Tensor, aten.unsafe_split.Tensor)
def _many_parts(node: fx.Node, given: Arguments, same: Same) -> None:
    """The op gives a tensor for each index of the axis, or for each `split_size` of them."""
    x, axis, step = given["self"], given["dim"], given.get("split_size", 1)
    if x.dim() and -x.dim() <= axis < x.dim():
        _require(node, number(x.shape[axis]) <= MOST_TENSORS * number(step), f"more than {MOST_TENSORS} parts")


def _scaled(node: fx.Node, given: Arguments, same: Same) -> None:
    """Source positions are places times 1/scale, converted to integers unchecked: each scale must be that of the sizes."""
    scales = given.get("scale_factors") or [given[name] for name in given if name.startswith("scales")]
    for scale in scales:
        bounded = scale is None or (
            isinstance(scale, int | float) and math.isfinite(scale) and 2**-12 <= scale <= 2**12
        )
        _require(node, bounded or isinstance(scale, torch.SymFloat), f"{scale} is no scale from 2^-12 to 2^12")
    sizes = given.get("output_size")
    if sizes is not None and given.get("scale_factors") is None:
        spatial = given[next(iter(given))].shape[2:]
        for size, before, scale in zip(sizes, spatial, scales, strict=False):
            fits = not isinstance(scale, int | float) or abs(number(size) - number(before) * scale) <= 1
            if fits and isinstance(scale, int | float) and not (type(size) is int and type(before) is int):
                fits = scale == int(scale) and same(size, before * int(scale))
            _require(node, fits, f"the scale {scale} doesn't fit the size {size}")


for _name in dir(aten):
    if _name.removeprefix("_").startswith("upsample_") and "backward" not in _name:
        _packet = getattr(aten, _name)
        CHECKS.update(
            {getattr(_packet, overload): _scaled for overload in _packet.overloads() if "out" not in overload}
        )


_quantized = torch.ops.quantized_decomposed
_DEQUANTIZE = (
    "dequantize_per_tensor",
    "dequantize_per_channel",
    "dequantize_per_channel_group",
    "dequantize_per_token",
)
_CHOOSABLE = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32)
_QUANTIZE = ("quantize_per_tensor", "quantize_per_channel", "quantize_per_channel_group", "quantize_per_token")


def _grid(node: fx.Node, given: Arguments, same: Same) -> None:
    """Quantisers are written in Python and fail while they run on dtypes, limits and counts that are known before."""
    dtype, low, high = given["dtype"], given["quant_min"], given["quant_max"]
    _require(node, not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool), f"{dtype} is no grid's")
    fits = all(isinstance(limit, int) for limit in (low, high))
    fits = fits and torch.iinfo(dtype).min <= low <= high <= torch.iinfo(dtype).max
    _require(node, fits, f"{low} to {high} are no limits of {dtype}")
    name, values = node.target._schema.name.partition("::")[2], next(iter(given.values()))  # type: ignore[union-attr]
    if name.startswith("dequantize"):
        _require(node, values.dtype == dtype, f"it is given {values.dtype} for {dtype}")
    scale = given.get("scale")
    _require(node, not isinstance(scale, int | float) or scale != 0, "a scale of 0")
    if name.endswith("per_token"):
        tokens = math.prod(numbers(values.shape[:-1]))
        counts = [math.prod(numbers(given[one].shape)) for one in ("scales", "zero_points")]
        _require(node, counts == [tokens, tokens], f"another number of scales than its {tokens} tokens")


for _name in (*_DEQUANTIZE, *_QUANTIZE):
    _packet = getattr(_quantized, _name)
    CHECKS.update({getattr(_packet, _one): _grid for _one in _packet.overloads()})


@trusts(_quantized.choose_qparams.tensor)
def _range_at_run_time(node: fx.Node, given: Arguments, same: Same) -> None:
    """Written in Python, too: it asserts of its limits while it runs."""
    low, high, dtype = given["quant_min"], given["quant_max"], given["dtype"]
    fits = dtype in _CHOOSABLE and all(isinstance(limit, int) for limit in (low, high))
    fits = fits and torch.iinfo(dtype).min <= low <= 0 <= high <= torch.iinfo(dtype).max and low < high
    _require(node, fits, f"{low} to {high} are no limits of {dtype} around 0")


@trusts(_quantized.choose_qparams_per_token.default)
def _chosen(node: fx.Node, given: Arguments, same: Same) -> None:
    """The kernel knows one dtype, and says so while it runs."""
    _require(node, given["dtype"] == torch.int8, f"scales of tokens are chosen for int8, not {given['dtype']}")
