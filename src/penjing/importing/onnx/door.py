"""`from_onnx`: a trained network in an ONNX file as a graph."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from penjing.checks import PATH, Rule, a, checked, either, mapping, optional, several
from penjing.damage import refusing
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.capture.capture import capture
from penjing.graph.doors import AXES
from penjing.importing.onnx.build import build
from penjing.importing.onnx.check import check
from penjing.importing.onnx.example import BATCH, example_of, fixed_batch, fixes_batch_to_one, inputs_of
from penjing.importing.onnx.file import read
from penjing.importing.onnx.module import FromOnnx

log = logging.getLogger(__name__)

TENSOR = a(Tensor, "a tensor")
EXAMPLE = optional(either(TENSOR, several(TENSOR, "a sequence of tensors")))
NAMES = optional(several(Rule("a name", lambda value: isinstance(value, str)), "a sequence of names"))


@checked(
    path=PATH, example_inputs=EXAMPLE, dynamic=optional(mapping(AXES, "a mapping from names to axes")), outputs=NAMES
)
def from_onnx(
    path: Path | str,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    *,
    dynamic: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
) -> Graph:
    """Reads a trained network from an ONNX file, for which no PyTorch code is needed, and captures it.

    Convolutions, products with constant matrices, normalisation and recurrent layers become PyTorch's layers, named after the
    file's weights and nodes. What comes out is checked against ONNX Runtime on an example. A file from a stranger does no
    harm: none of its code runs, and data outside of its folder isn't read.

    Args:
        path: the file: float weights (those of 16 bits become float32), opset 7 or later.
        example_inputs: needed where the file leaves sizes other than the batch free.
        dynamic: further free axes by input name, as in `capture`.
        outputs: names of the values to return, any in the file; by default its outputs.

    Returns:
        The graph. Its batch is free where the file leaves it free, or fixes it to 1 and the network doesn't mix its samples.

    Raises:
        PenjingError: the file is damaged or quantised, an op has no form in PyTorch, or results differ from ONNX Runtime's.

    Warns:
        UserWarning: the file takes one number of samples alone, and so does the graph.
    """
    module, example = read_onnx(path, example_inputs, outputs)
    names = module.parameter_names
    free = {names.get(name, name): axes for name, axes in (dynamic or {}).items()}
    with warnings.catch_warnings():
        if module.batch is not None:
            warnings.filterwarnings("ignore", message=".* was captured for batches of")
        graph = capture(module, example, dynamic=free)
    if module.batch is not None:
        warnings.warn(
            f"{path} was written for {module.batch} sample(s) at a time, so the graph takes no other number.",
            stacklevel=3,
        )
    graph.name = Path(path).stem
    return graph


def read_onnx(
    path: Path | str, example_inputs: Tensor | Sequence[Tensor] | None = None, outputs: Sequence[str] | None = None
) -> tuple[FromOnnx, tuple[Tensor, ...]]:
    """Returns an ONNX file's network as a module, and example inputs; arguments and errors are those of `from_onnx`."""
    with refusing(f"{path} can't be read as an ONNX file"):
        return _read(path, example_inputs, outputs)


def _read(
    path: Path | str, example_inputs: Tensor | Sequence[Tensor] | None, outputs: Sequence[str] | None
) -> tuple[FromOnnx, tuple[Tensor, ...]]:
    file = read(Path(path))
    inputs = inputs_of(file)
    names = [one.name for one in inputs]
    wanted = list(outputs) if outputs else [value.name for value in file.graph.output]
    given = None
    if example_inputs is not None:
        given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        if len(given) != len(inputs):
            raise PenjingError(f"{path} takes {len(inputs)} inputs ({', '.join(names)}), and {len(given)} are given.")
        for value, one in zip(given, inputs, strict=True):
            if not one.takes(tuple(value.shape)):
                raise PenjingError(
                    f"{path}: the input '{one.name}' has the shape {one.told}, and {list(value.shape)} is given."
                )
        given = tuple(value.to(one.dtype) for value, one in zip(given, inputs, strict=True))
    if fixes_batch_to_one(inputs):
        single = given or example_of(file, inputs, 1)
        generator = torch.Generator().manual_seed(1)
        several = tuple(torch.cat([one[:1], _other(one[:1], generator)]) for one in single)
        try:
            module = build(file, names, several, wanted, frees_batch=True)
            check(file, module, inputs, several, wanted, rows=True)
            return module, several
        except PenjingError as error:
            log.info("%s keeps its batch of 1: %s", path, error)
        given = tuple(one[:1] for one in single)
    example = given or example_of(file, inputs, BATCH)
    module = build(file, names, example, wanted, frees_batch=False)
    module.batch = fixed_batch(inputs)
    check(file, module, inputs, example, wanted, rows=False)
    return module, example


def _other(example: Tensor, generator: torch.Generator) -> Tensor:
    """Returns another sample like this one."""
    order = torch.randperm(example.numel(), generator=generator)
    return example.reshape(-1)[order].reshape(example.shape)
