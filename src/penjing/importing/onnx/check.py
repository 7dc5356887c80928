"""Checks a module that was read from an ONNX file against ONNX Runtime, which runs the file itself."""

import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.importing.onnx.example import Input
from penjing.importing.onnx.file import OnnxFile

# Largest difference as a share of an output's largest value. Rounding gives 1e-6 in shallow networks and 1e-4 in deep ones.
TOLERANCE = 1e-3
HALF_TOLERANCE = 3e-2  # of files that compute in 16 bits, which PyTorch does in 32
ROUNDING = 2.0**-23  # relative distance of two float32 numbers
NOISES = 10  # how many times as large as one rounding of each weight the differences may be
HALF = "tensor(float16)"


def check(
    file: OnnxFile,
    module: nn.Module,
    inputs: Sequence[Input],
    example: Sequence[Tensor],
    outputs: Sequence[str],
    rows: bool,
) -> None:
    """Makes sure that the module gives what ONNX Runtime gives; warns where that can't run the file.

    Args:
        file: the file.
        module: the module.
        inputs: its inputs.
        example: values for them.
        outputs: the names of what it returns.
        rows: whether the file takes one sample at a time, and the module several.

    Raises:
        PenjingError: they differ.
    """
    try:
        session = _session(file, outputs)
        half = any(one.type == HALF for one in (*session.get_inputs(), *session.get_outputs()))
        feeds = {
            one.name: value.numpy().astype(np.float16 if one.type == HALF else value.numpy().dtype)
            for one, value in zip(session.get_inputs(), example, strict=True)
        }
        count = len(example[0]) if rows else 1
        calls = [{k: v[i : i + 1] for k, v in feeds.items()} if rows else feeds for i in range(count)]
        results = [session.run(list(outputs), call) for call in calls]
    except Exception as error:  # the binding's exceptions share no type
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(f"{file.path} wasn't checked: ONNX Runtime can't run it ({said}).", stacklevel=4)
        return
    ours = _run(module, example)
    for index, (name, theirs) in enumerate(zip(outputs, zip(*results, strict=True), strict=True)):
        mine, wanted = ours[index], np.concatenate(theirs) if rows else theirs[0]
        where = f"{file.path}: the output '{name}'"
        if mine.shape != wanted.shape:
            raise PenjingError(f"{where} has the shape {mine.shape} in PyTorch and {wanted.shape} in ONNX Runtime.")
        largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
        allowed = (HALF_TOLERANCE if half else TOLERANCE) * largest + 1e-6
        if np.allclose(mine, wanted, rtol=0, atol=allowed, equal_nan=True):
            continue
        apart, noise = (np.nanmax(np.abs(mine - one)) for one in (wanted, _rounded(module, example)[index]))
        if apart <= NOISES * noise:  # the file's own arithmetic loses these digits, on whatever runtime
            continue
        raise PenjingError(
            f"{where} differs by {apart:.3g} between PyTorch and ONNX Runtime, where values go up to {largest:.3g}: an op is "
            "read wrongly. Name earlier values with outputs=[…] to find it, and please report it."
        )


def _run(module: nn.Module, example: Sequence[Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        made = module(*example)
    return [np.asarray(one).astype(np.float64) for one in (made if isinstance(made, tuple) else (made,))]


def _rounded(module: nn.Module, example: Sequence[Tensor]) -> list[np.ndarray]:
    """Returns the outputs where each weight differs by one rounding."""
    generator = torch.Generator().manual_seed(0)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    with torch.no_grad():
        for parameter in module.parameters():
            signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
            parameter.mul_(1 + ROUNDING * signs)
        made = _run(module, example)
        for parameter, value in zip(module.parameters(), before, strict=True):
            parameter.copy_(value)
    return made


def _session(file: OnnxFile, outputs: Sequence[str]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # the exception says it
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source: str | bytes = str(file.path)
    inner = set(outputs) - {value.name for value in file.graph.output}
    if inner:
        model = onnx.load(source)
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(inner))
        source = model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
