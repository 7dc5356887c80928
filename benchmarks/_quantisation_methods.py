"""The quantisers that are compared: each turns a float network and calibration images into a file that a runtime loads.

Each is split in two, so that what is timed is the quantiser alone: what stands before and behind the `yield` is reading the
network and writing the file. Peers are called as their documentation says, with their defaults but for what a name tells.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import penjing as pj

BATCH = 8  # of calibration, where a quantiser takes batches
ONNXRUNTIME, OPENVINO, SIMULATED = "ONNX Runtime", "OpenVINO", "PyTorch, simulated"


@dataclass(frozen=True)
class Job:
    """What a quantiser is given.

    Attributes:
        graph: the captured network.
        onnx: the same, as a float ONNX file.
        module: the network itself, pickled.
        images: that calibrate, (N, C, H, W).
        file: where to write, without a suffix.
    """

    graph: Path
    onnx: Path
    module: Path
    images: Tensor
    file: Path

    def batches(self) -> list[Tensor]:
        """The images in batches."""
        return list(self.images.split(BATCH))


# Stops once, in between: what is done then, up to the next step, is timed. Returns the file, or a module to be judged.
Steps = Iterator[Path | nn.Module | None]


@dataclass(frozen=True)
class Method:
    """A quantiser with its settings.

    Attributes:
        steps: a generator that yields None when it is ready, then None when it has quantised, then what came out.
        runtime: what runs it.
        package: what must be installed.
        settings: of `steps`.
    """

    steps: Callable[..., Steps]
    runtime: str
    package: str
    settings: dict[str, Any] = field(default_factory=dict)


def penjing(job: Job, **settings: Any) -> Steps:
    """`pj.quantize`; written as ONNX unless it is a simulation."""
    graph, batches = pj.load(job.graph), job.batches()
    yield None
    small = pj.quantize(graph, batches, **settings)
    yield None
    if settings.get("simulate"):
        yield small
    else:
        yield pj.lower(small, path=job.file.with_suffix(".onnx")).path


def onnxruntime(job: Job, *, per_channel: bool) -> Steps:
    """`quantize_static` after its own preparation: unsigned activations, signed weights, smallest and largest value."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(job.batches())

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch.numpy()}

    name = _input_name(job.onnx)
    prepared, file = job.file.with_suffix(".prepared.onnx"), job.file.with_suffix(".onnx")
    yield None
    quant_pre_process(str(job.onnx), str(prepared))
    quantize_static(
        str(prepared), str(file), Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    yield None
    prepared.unlink()
    yield file


def _input_name(file: Path) -> str:
    import onnx

    return str(onnx.load(file, load_external_data=False).graph.input[0].name)


def nncf(job: Job, *, fast_bias_correction: bool) -> Steps:
    """NNCF for OpenVINO. Read with `convert_model`: of what `read_model` gives, NNCF corrects no bias and doesn't say so."""
    import nncf as tool
    import openvino as ov

    model = ov.convert_model(job.onnx)
    images = job.images.numpy()
    before = _added(model)
    yield None
    dataset = tool.Dataset([image[None] for image in images])
    small = tool.quantize(
        model, dataset, subset_size=len(images), fast_bias_correction=fast_bias_correction
    )  # fmt: skip
    yield None
    after = _added(small)
    corrected = sum(not np.array_equal(after[name], value) for name, value in before.items() if name in after)
    if not corrected:
        raise SystemExit(
            "NNCF corrected no bias, so this isn't what its documentation promises: compare nothing with it."
        )
    print(f"NNCF corrected {corrected} of {len(before)} biases")
    file = job.file.with_suffix(".xml")
    ov.save_model(small, file, compress_to_fp16=False)
    yield file


def _added(model: Any) -> dict[str, np.ndarray]:
    """Returns the constants that are added to something, biases among them, by the name of the sum."""
    found = {}
    for op in model.get_ops():
        if op.get_type_name() == "Add":
            for source in (value.get_source_output().get_node() for value in op.inputs()):
                if source.get_type_name() == "Constant":
                    found[op.get_friendly_name()] = np.array(source.get_data())
    return found


def torchao(job: Job) -> Steps:
    """PT2E with torchao's quantiser for x86; written as ONNX by PyTorch."""
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    # Strictly, and from the module itself: otherwise the quantiser finds no convolution, and doesn't say so.
    network = torch.load(job.module, weights_only=False)  # which this run wrote
    example, sizes = (job.images[:2],), ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(network, example, dynamic_shapes=sizes, strict=True).module(check_guards=False)
    batches = job.batches()
    yield None
    prepared = prepare_pt2e(exported, X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config()))
    with torch.no_grad():
        for batch in batches:
            prepared(batch)
    small = convert_pt2e(prepared)
    yield None
    convolutions = [node for node in small.graph.nodes if str(node.target) == "aten.conv2d.default"]
    left = [node.name for node in convolutions if "dequantize" not in str(getattr(node.args[0], "target", ""))]
    if not convolutions or left:
        raise SystemExit(f"torchao left convolutions in float: {', '.join(left) or 'all'}. Compare nothing with it.")
    move_exported_model_to_eval(small)
    file = job.file.with_suffix(".onnx")
    again = torch.export.export(small, example, dynamic_shapes=sizes, strict=False)
    torch.onnx.export(again, (), str(file), dynamo=True, external_data=False, verbose=False)
    yield file


_FOUR = {"weights": "int4", "simulate": True}
_MIXED = {"weights": ("int4", "int8"), "budget": pj.Budget(size="0.15x"), "simulate": True}
_STATISTICS = {"corrections": ["batch_norm_statistics"]}
METHODS: dict[str, Method] = {
    "Penjing": Method(penjing, ONNXRUNTIME, "penjing"),
    "Penjing, statistics estimated anew": Method(penjing, ONNXRUNTIME, "penjing", _STATISTICS),
    "Penjing, per tensor, equalised, biases corrected": Method(
        penjing, ONNXRUNTIME, "penjing",
        {"grain": "tensor", "corrections": ["cross_layer_equalization", "bias_correction"]},
    ),
    "Penjing, per tensor, equalised, QuantEase, biases corrected": Method(
        penjing, ONNXRUNTIME, "penjing",
        {"grain": "tensor", "corrections": ["cross_layer_equalization", "bias_correction"], "rounding": "quantease"},
    ),
    "ONNX Runtime, per channel": Method(onnxruntime, ONNXRUNTIME, "onnxruntime", {"per_channel": True}),
    "ONNX Runtime, per tensor": Method(onnxruntime, ONNXRUNTIME, "onnxruntime", {"per_channel": False}),
    "NNCF": Method(nncf, OPENVINO, "nncf", {"fast_bias_correction": True}),
    "NNCF, full bias correction": Method(nncf, OPENVINO, "nncf", {"fast_bias_correction": False}),
    "torchao PT2E": Method(torchao, ONNXRUNTIME, "torchao"),
    "Penjing, 4-bit weights, nearest": Method(penjing, SIMULATED, "penjing", _FOUR),
    "Penjing, 4-bit weights, nearest, statistics estimated anew": Method(
        penjing, SIMULATED, "penjing", _FOUR | _STATISTICS
    ),
    "Penjing, 4-bit weights, AdaRound, statistics estimated anew": Method(
        penjing, SIMULATED, "penjing", _FOUR | _STATISTICS | {"rounding": "adaround"}
    ),
    "Penjing, 4-bit weights, QuantEase, statistics estimated anew": Method(
        penjing, SIMULATED, "penjing", _FOUR | _STATISTICS | {"rounding": "quantease"}
    ),
    "Penjing, 4-bit weights with zero points, AdaRound, statistics estimated anew": Method(
        penjing, SIMULATED, "penjing", _FOUR | _STATISTICS | {"weights": "uint4", "rounding": "adaround"}
    ),
    "Penjing, 4-bit weights with zero points, QuantEase, statistics estimated anew": Method(
        penjing, SIMULATED, "penjing", _FOUR | _STATISTICS | {"weights": "uint4", "rounding": "quantease"}
    ),
    "Penjing, 4-bit weights, BRECQ, statistics estimated anew": Method(
        penjing, SIMULATED, "penjing", _FOUR | _STATISTICS | {"rounding": "brecq"}
    ),
    "Penjing, 4 or 8 bits by sensitivity, 0.15 of the bytes, statistics estimated anew": Method(
        penjing, SIMULATED, "penjing", _MIXED | _STATISTICS
    ),
    "Penjing, 4 or 8 bits by sensitivity, 0.15 of the bytes, QuantEase, statistics estimated anew": Method(
        penjing, SIMULATED, "penjing", _MIXED | _STATISTICS | {"rounding": "quantease"}
    ),
}  # fmt: skip
