"""Checks a module that was read from an ONNX file against ONNX Runtime, which runs the file itself."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.importing.onnx.example import Input
from penjing.importing.onnx.file import OnnxFile

# Largest difference as a share of the largest value in the same channel or column. Rounding gives 1e-6 in shallow networks and
# 1e-4 in deep ones.
TOLERANCE = 1e-3
HALF_TOLERANCE = 3e-2  # of files that compute in 16 bits, which PyTorch does in 32
ROUNDING, HALF_ROUNDING = 2.0**-23, 2.0**-10  # relative distance of two numbers of 32 bits, and of 16
FLOOR = 16  # roundings of an output's largest value that each of its entries may be off
NOISES = 10  # how many times as large as one rounding of each weight the differences may be
ROUNDINGS = 4  # random roundings of the weights, of which the largest effect counts
HALF = "tensor(float16)"
READ_WRONGLY = "An op is read wrongly: name earlier values with outputs=[…] to find it, and please report it."


def check(
    file: OnnxFile,
    module: nn.Module,
    inputs: Sequence[Input],
    example: Sequence[Tensor],
    outputs: Sequence[str],
    rows: bool,
) -> None:
    """Makes sure that the module gives what ONNX Runtime gives.

    Args:
        file: the file.
        module: the module.
        inputs: its inputs.
        example: values for them.
        outputs: the names of what it returns.
        rows: whether the file takes one sample at a time, and the module several.

    Raises:
        PenjingError: they differ, or ONNX Runtime can't run the file.
    """
    session, results = _results(file, example, outputs, rows)
    half = any(one.type == HALF for one in (*session.get_inputs(), *session.get_outputs()))
    tolerance, rounding = (HALF_TOLERANCE, HALF_ROUNDING) if half else (TOLERANCE, ROUNDING)
    ours = _run(module, example)
    for index, (name, theirs) in enumerate(zip(outputs, zip(*results, strict=True), strict=True)):
        mine, wanted = ours[index], np.concatenate(theirs) if rows else theirs[0]
        where = f"{file.path}: the output '{name}'"
        if mine.shape != wanted.shape:
            raise PenjingError(f"{where} has the shape {mine.shape} in PyTorch and {wanted.shape} in ONNX Runtime.")
        if wanted.dtype.kind != "f":
            _check_whole_numbers(where, module, example, index, mine, wanted, rounding)
            continue
        wanted = wanted.astype(np.float64)
        if (np.isnan(mine) != np.isnan(wanted)).any():
            raise PenjingError(
                f"{where} is not a number (NaN) in other entries in PyTorch than in ONNX Runtime. {READ_WRONGLY}"
            )
        largest = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
        floor = (rounding if half else FLOOR * rounding) * largest + 1e-6
        allowed = tolerance * _scale(wanted) + floor
        if np.isclose(mine, wanted, rtol=0, atol=allowed, equal_nan=True).all():
            continue
        # The file's own arithmetic may lose these digits, on whatever runtime.
        with np.errstate(invalid="ignore"):
            noises = [_scale(one[index] - mine) for one in _rounded(module, example, rounding)]
        allowed = np.maximum(allowed, NOISES * np.max(noises, axis=0))
        wrong = ~np.isclose(mine, wanted, rtol=0, atol=allowed, equal_nan=True)
        if wrong.any():
            apart = np.abs(mine[wrong] - wanted[wrong]).max()
            raise PenjingError(
                f"{where} differs by {apart:.3g} between PyTorch and ONNX Runtime, where values go up to {largest:.3g}. "
                f"{READ_WRONGLY}"
            )


def _check_whole_numbers(
    where: str,
    module: nn.Module,
    example: Sequence[Tensor],
    index: int,
    mine: np.ndarray,
    wanted: np.ndarray,
    rounding: float,
) -> None:
    """Refuses whole numbers that differ, unless rounding the weights changes as many: positions of near equal entries."""
    differing = (mine != wanted).mean() if mine.size else 0.0
    if not differing:
        return
    changed = max((one[index] != mine).mean() for one in _rounded(module, example, rounding))
    if differing > NOISES * changed:
        raise PenjingError(
            f"{where} holds whole numbers, of which {differing:.1%} differ between PyTorch and ONNX Runtime. {READ_WRONGLY}"
        )


def _results(
    file: OnnxFile, example: Sequence[Tensor], outputs: Sequence[str], rows: bool
) -> tuple[ort.InferenceSession, list[list[np.ndarray]]]:
    """Returns ONNX Runtime's session, and what each call of it gives."""
    session = _running(file, lambda: _session(file, outputs))
    feeds = {
        one.name: value.numpy().astype(np.float16 if one.type == HALF else value.numpy().dtype)
        for one, value in zip(session.get_inputs(), example, strict=True)
    }
    count = len(example[0]) if rows else 1
    calls = [{k: v[i : i + 1] for k, v in feeds.items()} if rows else feeds for i in range(count)]
    return session, [_running(file, lambda call=call: session.run(list(outputs), call)) for call in calls]  # type: ignore[misc]


def _running(file: OnnxFile, call: Callable[[], Any]) -> Any:
    """Returns what a call of ONNX Runtime gives."""
    try:
        return call()
    except Exception as error:  # the binding's exceptions share no type
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PenjingError(
            f"{file.path} can't be checked, since ONNX Runtime can't run it ({said}). Export it in a form that ONNX Runtime runs."
        ) from error


def _scale(values: np.ndarray) -> np.ndarray:
    """Returns for each entry the largest finite size of those that share its channel (axis 1) or its place on the last axis,
    whichever is smaller: boxes of hundreds of pixels may stand beside scores up to 1 along either.
    """
    sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
    if values.ndim < 2:
        return sizes
    scales = [
        sizes.max(axis=tuple(other for other in range(values.ndim) if other != axis), keepdims=True, initial=0.0)
        for axis in {1, values.ndim - 1}
    ]
    smallest: np.ndarray = np.broadcast_to(np.minimum(scales[0], scales[-1]), values.shape)
    return smallest


def _run(module: nn.Module, example: Sequence[Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        made = module(*example)
    return [np.asarray(one).astype(np.float64) for one in (made if isinstance(made, tuple) else (made,))]


def _rounded(module: nn.Module, example: Sequence[Tensor], rounding: float) -> list[list[np.ndarray]]:
    """Returns the outputs of several runs in which each weight differs by one rounding."""
    generator = torch.Generator().manual_seed(0)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    made = []
    with torch.no_grad():
        for _ in range(ROUNDINGS):
            for parameter, value in zip(module.parameters(), before, strict=True):
                signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
                parameter.copy_(value * (1 + rounding * signs))
            made.append(_run(module, example))
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
