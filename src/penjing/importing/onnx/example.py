"""The inputs of an ONNX file, and an example of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor

from penjing.errors import PenjingError
from penjing.importing.onnx.file import OnnxFile
from penjing.importing.onnx.ops.arithmetic import DTYPES

BATCH = 2  # samples: `torch.export` would fix an axis of size 1


@dataclass(frozen=True)
class Input:
    """An input of a file.

    Attributes:
        name: in the file.
        shape: a number for an axis of fixed size, else the axis' name, which may be empty; None where the file doesn't tell.
        dtype: of the module's input.
    """

    name: str
    shape: tuple[int | str, ...] | None
    dtype: torch.dtype

    @property
    def told(self) -> str:
        """The shape for people: "[batch, 3, 32, 32]"."""
        return f"[{', '.join(str(size or '?') for size in self.shape or ())}]"

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Tells whether a tensor has this shape; a batch that the file fixes to 1 may be any."""
        if self.shape is None:
            return True
        wanted = (shape[:1] + self.shape[1:]) if self.shape[:1] == (1,) else self.shape
        return len(wanted) == len(shape) and all(
            one == size for one, size in zip(wanted, shape, strict=True) if isinstance(one, int)
        )


def inputs_of(file: OnnxFile) -> list[Input]:
    """Returns what the file is called with.

    Raises:
        PenjingError: an input is no tensor, or none of numbers.
    """
    found = []
    for value in file.graph.input:
        if value.name in file.constants:  # old files list their weights among the inputs
            continue
        if not value.type.HasField("tensor_type"):
            raise PenjingError(f"{file.path}: the input '{value.name}' is no tensor, and only tensors are read.")
        kind = value.type.tensor_type
        if kind.elem_type not in DTYPES:
            told = onnx.TensorProto.DataType.Name(kind.elem_type)
            raise PenjingError(f"{file.path}: the input '{value.name}' holds {told}, of which PyTorch has no tensors.")
        # Some exporters write -1 for a free size.
        shape = tuple(axis.dim_value if axis.dim_value > 0 else axis.dim_param for axis in kind.shape.dim)
        found.append(Input(value.name, shape if kind.HasField("shape") else None, DTYPES[kind.elem_type]))
    return found


def fixes_batch_to_one(inputs: Sequence[Input]) -> bool:
    """Tells whether each input's first axis has the fixed size 1, which most exporters write by default."""
    return bool(inputs) and all(one.shape is not None and one.shape[:1] == (1,) for one in inputs)


def fixed_batch(inputs: Sequence[Input]) -> int | None:
    """Returns the size that all inputs' first axes are fixed to; None where one is free, or they differ."""
    sizes = {one.shape[0] if one.shape else None for one in inputs}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def example_of(file: OnnxFile, inputs: Sequence[Input], batch: int) -> tuple[Tensor, ...]:
    """Returns random inputs of the shapes that the file tells.

    Args:
        file: the file, for errors.
        inputs: its inputs.
        batch: size of each first axis that the file leaves free.

    Raises:
        PenjingError: the file leaves other axes free too, or tells no shape.
    """
    generator = torch.Generator().manual_seed(0)
    made = []
    for one in inputs:
        free = (
            None
            if one.shape is None
            else [axis for axis, size in enumerate(one.shape) if axis and not isinstance(size, int)]
        )
        if free is None or free:
            named = [
                f"{axis} ({one.shape[axis]})" if one.shape and one.shape[axis] else str(axis) for axis in free or []
            ]
            which = f"leaves the sizes of its axes {', '.join(named)} free" if free else "has no shape in the file"
            raise PenjingError(
                f"{file.path}: the input '{one.name}' {which}. Give example inputs of the sizes that you use: "
                f"from_onnx(…, example_inputs=torch.zeros(2, …)), or data on the command line."
            )
        assert one.shape is not None
        shape = [batch if isinstance(size, str) else size for size in one.shape]
        if one.dtype.is_floating_point:
            made.append(torch.randn(shape, generator=generator, dtype=one.dtype))
        else:
            made.append(torch.randint(0, 2, shape, generator=generator).to(one.dtype))
    return tuple(made)
