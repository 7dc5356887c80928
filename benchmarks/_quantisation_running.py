"""Running what quantisers wrote: logits of images, times in turns, and the share of multiplications done in integers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from _quantisation_methods import ONNXRUNTIME, OPENVINO
from penjing import targets
from penjing.graph.taps import Execution, constant_values
from penjing.quantization.calibration.running import in_floats
from penjing.targets.bench._turns import in_turns, no_collection
from penjing.targets.onnxruntime._session import load, options

BATCH = 20
FUSED = "/DequantizationMultiply"  # what OpenVINO appends to the name of a layer that a scale was fused into


def logits(runtime: str, made: Path | nn.Module, images: Tensor) -> Tensor:
    """Returns the network's answers to all images."""
    if isinstance(made, nn.Module):
        program = made.program
        known = constant_values(program)
        with torch.no_grad():
            runs = (Execution(program, in_floats).run(x, initial_env=dict(known)) for x in images.split(BATCH))
            return torch.cat([outputs[0] for outputs in runs])
    call = CALLS[runtime](made, BATCH)
    parts = []
    for x in images.split(BATCH):
        full = torch.cat([x, x[:1].expand(BATCH - len(x), *x.shape[1:])])  # OpenVINO's batch is fixed
        parts.append(torch.from_numpy(np.array(call(full.numpy())))[: len(x)])
    return torch.cat(parts)


def in_onnxruntime(file: Path, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a call on one thread."""
    session = load(file, options(threads=1))
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def in_openvino(file: Path, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a call on one thread; what is left in floating point computes in float32, as elsewhere."""
    compiled = _compiled(file, batch)
    request = compiled.create_infer_request()

    def call(images: np.ndarray) -> np.ndarray:
        return np.asarray(request.infer({0: images}, share_inputs=True)[compiled.output(0)])

    return call


CALLS = {ONNXRUNTIME: in_onnxruntime, OPENVINO: in_openvino}


def _compiled(file: Path, batch: int) -> Any:
    import openvino as ov

    model = ov.convert_model(file) if file.suffix == ".onnx" else ov.Core().read_model(file)
    shape = model.input(0).get_partial_shape()
    shape[0] = batch
    model.reshape(shape)
    wanted = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return ov.Core().compile_model(model, "CPU", wanted)


def quality(answers: Tensor, reference: Tensor, targets_: Tensor) -> dict[str, float]:
    """Compares logits with those of the float network.

    Returns:
        accuracy; agreement, the share of images with the same first answer; snr, 10 log10 of the float logits' mean
        square over that of the difference.
    """
    first, noise = answers.argmax(1), (answers - reference).double().square().sum()
    return {
        "accuracy": float((first == targets_).double().mean()),
        "agreement": float((first == reference.argmax(1)).double().mean()),
        "snr": 10 * math.log10(float(reference.double().square().sum() / noise)) if noise else math.inf,
    }


def latencies(files: dict[str, tuple[str, Path]], image: Tensor, runs: int, seconds: float) -> dict[str, float]:
    """Returns the median milliseconds of one image on one thread, by the names of the files, which take turns."""
    given = np.ascontiguousarray(image[None].numpy())
    opened = {name: CALLS[runtime](file, 1) for name, (runtime, file) in files.items()}
    calls = {name: (lambda call=call: call(given)) for name, call in opened.items()}
    with no_collection():
        times = in_turns(calls, runs, seconds)
    return {name: 1e3 * float(np.median(values)) for name, values in times.items()}


def size(file: Path) -> int:
    """Returns the bytes of all that the runtime needs."""
    return file.stat().st_size + (file.with_suffix(".bin").stat().st_size if file.suffix == ".xml" else 0)


def integer_macs(runtime: str, file: Path, macs: int) -> float:
    """Returns the share of multiply-accumulates that the runtime does in integers, by what it says that it executes."""
    if runtime == ONNXRUNTIME:
        return targets.integer_macs(targets.open_artifact(file), macs)
    import openvino as ov

    cost = _openvino_macs(ov.Core().read_model(file))
    done = 0
    for op in _compiled(file, 1).get_runtime_model().get_ops():
        info = op.get_rt_info()
        if str(info["runtimePrecision"].value) in ("i8", "u8"):
            names = [name.removesuffix(FUSED) for name in str(info["originalLayersNames"].value).split(",")]
            done += sum(cost.get(name, 0) for name in names)
    return done / macs


def _openvino_macs(model: Any) -> dict[str, int]:
    """Returns the multiply-accumulates for one image of each layer, by its name."""
    shape = model.input(0).get_partial_shape()
    shape[0] = 1
    model.reshape(shape)
    found = {}
    for op in model.get_ops():
        kind, out = op.get_type_name(), None
        if kind in ("Convolution", "GroupConvolution"):
            weight = list(op.input(1).get_partial_shape().to_shape())
            channels = 1 if kind == "Convolution" else 2  # axes of output channels: (out, …) and (groups, out, …)
            out = math.prod(op.output(0).get_shape()) * math.prod(weight[channels:])
        elif kind == "MatMul":
            given = list(op.input(0).get_partial_shape().to_shape())
            out = math.prod(op.output(0).get_shape()) * given[-2 if op.get_attributes()["transpose_a"] else -1]
        if out is not None:
            found[op.get_friendly_name()] = out
    return found
