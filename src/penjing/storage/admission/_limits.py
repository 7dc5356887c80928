"""What integers and strings an argument may be, by its name, which ATen uses alike in all ops.

The bounds are far beyond what networks hold and far below where a kernel's own arithmetic overflows: many compute window
positions or strides in 32 bits, or pass an integer to a library that trusts it.
"""

import re

LARGEST_INT = 2**31 - 1
LARGEST_LONG = 2**63 - 1
MOST_AXES = 64  # most axes of a tensor in PyTorch
# Of a graph whose file nobody said to trust. Networks of more nodes have weights, and so a large file; reading a node takes
# 0.2 ms.
MOST_NODES = 2**12
BYTES_PER_NODE = 2**12  # of the file, above which it may have as many more
MEMORY_PER_NODE = 2**17  # the same, of the memory in bytes that a caller allows
MOST_TENSORS = 4096  # most tensors in a list that an op takes or returns, such as the steps of a sequence

Range = tuple[int, int]

_AXIS: Range = (-MOST_AXES, MOST_AXES - 1)
_SIZE: Range = (0, LARGEST_INT)
_SIZE_OR_REST: Range = (-1, LARGEST_INT)  # -1: what is left, or as it is
_COUNT: Range = (1, LARGEST_INT)
_WINDOW: Range = (1, 2**16)
_EDGE: Range = (0, 2**16)
_LONG: Range = (-LARGEST_LONG - 1, LARGEST_LONG)
_ENUM: Range = (0, 2)
_DEFAULT: Range = (-LARGEST_INT, LARGEST_INT)

_BY_NAME: tuple[tuple[Range, str], ...] = (
    (
        _AXIS,
        "dim dims axis axis0 axis1 dim0 dim1 dim2 destination source start_dim end_dim dimension dims_self dims_other",
    ),
    (_WINDOW, "stride dilation kernel_size groups num_groups num_layers"),
    (_EDGE, "padding output_padding"),
    (_SIZE_OR_REST, "shape size sizes"),
    (_SIZE, "repeats k steps window_length row col m num_samples length split_size split_sizes"),
    (_COUNT, "output_size normalized_shape num_classes group_size n_fft hop_length win_length step"),
    ((1, MOST_TENSORS), "chunks sections"),
    (_ENUM, "interpolation_mode padding_mode reduction compute_mode mode"),
    ((1, 2**12), "upscale_factor downscale_factor"),
    (_LONG, "start end low high ignore_index"),
    ((-300, 300), "decimals"),
)
_RANGES: dict[str, Range] = {name: bounds for bounds, names in _BY_NAME for name in names.split()}

_RANGES_OF: dict[str, dict[str, Range]] = {
    "aten.adaptive_avg_pool1d.default": {"output_size": _SIZE},
    "aten.adaptive_avg_pool2d.default": {"output_size": _SIZE},
    "aten.adaptive_avg_pool3d.default": {"output_size": _SIZE},
    "aten.tile.default": {"dims": _SIZE},
    "aten.eye.default": {"n": _SIZE},
    "aten.eye.m": {"n": _SIZE},
    "aten.randperm.default": {"n": _SIZE},
    "aten.diff.default": {"n": (0, 16)},  # as many passes over the tensor
    "aten.matrix_power.default": {"n": (-1024, 1024)},
    "aten.linalg_matrix_power.default": {"n": (-1024, 1024)},
    "aten.unfold.default": {"size": _SIZE},
    **{f"aten.reflection_pad{n}d.default": {"padding": _DEFAULT} for n in (1, 2, 3)},  # negative ones cut
    **{f"aten.replication_pad{n}d.default": {"padding": _DEFAULT} for n in (1, 2, 3)},
    **{f"aten.fft_{which}.default": {"n": _COUNT, "s": _SIZE_OR_REST} for which in ("fft", "ifft", "rfft", "irfft")},
}

_EINSUM = re.compile(r"[A-Za-z., >-]{1,512}")

_STRINGS: dict[str, frozenset[str]] = {
    "approximate": frozenset({"none", "tanh"}),
    "indexing": frozenset({"ij", "xy"}),
    "interpolation": frozenset({"linear", "lower", "higher", "midpoint", "nearest"}),
    "mode": frozenset({"constant", "reflect", "replicate", "circular"}),
    "norm": frozenset({"forward", "backward", "ortho"}),
    "ord": frozenset({"fro", "nuc"}),
    "pad_mode": frozenset({"constant", "reflect", "replicate", "circular"}),
    "padding": frozenset({"same", "valid"}),
    "reduce": frozenset({"add", "multiply", "sum", "prod", "mean", "amax", "amin"}),
    "rounding_mode": frozenset({"trunc", "floor"}),
    "side": frozenset({"left", "right"}),
}


def integers(op: str, argument: str) -> Range:
    """Returns the smallest and the largest integer that an argument of an op (by its name in files) may be."""
    return _RANGES_OF.get(op, {}).get(argument) or _RANGES.get(argument, _DEFAULT)


def is_word(argument: str, text: str) -> bool:
    """Tells whether an argument may be this string."""
    if argument == "equation":
        return _EINSUM.fullmatch(text) is not None
    return text in _STRINGS.get(argument, frozenset())


def nodes_for(file_size: int, largest: int | None) -> int:
    """Returns how many nodes a file may have.

    Args:
        file_size: bytes.
        largest: bytes of memory that the caller allows; None where nothing was said.
    """
    return max(MOST_NODES, file_size // BYTES_PER_NODE, (largest or 0) // MEMORY_PER_NODE)
