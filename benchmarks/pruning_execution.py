"""What each granularity gains where it runs and where it lies: single layers in ONNX Runtime, OpenVINO and LiteRT.

python benchmarks/pruning_execution.py [RUNTIME…]

Runs what is installed beside Penjing: openvino; litert-torch with ai-edge-litert. One thread, batch 1; the variants of a
layer take turns, and a number is the dense layer's median time over the variant's. Finished layers are not run again.
"""

import statistics
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import penjing as pj
from _pruning import Rows
from _tables import publish
from penjing.graph.edit.kernels import shrink_kernels
from penjing.targets.onnxruntime._session import load, options

ROUNDS = 60
BURST = 0.004  # seconds of calls in a row, after one that isn't timed
RUNTIMES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "litert_torch"}


@dataclass(frozen=True)
class Layer:
    """A layer with its input, and the one that is left of it when half of the channels go on both sides."""

    name: str
    make: Callable[[int], nn.Module]
    shape: Callable[[int], tuple[int, ...]]


def _conv(kernel: int, channels: int, size: int, depthwise: bool = False) -> Layer:
    def make(part: int) -> nn.Module:
        width = channels // part
        return nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width if depthwise else 1)

    kind = f"{kernel}×{kernel}{' depthwise' if depthwise else ''}, {channels} channels, {size}×{size}"
    return Layer(kind, make, lambda part: (1, channels // part, size, size))


def _linear(width: int, rows: int) -> Layer:
    name = f"linear, {width}→{width}, {rows} {'row' if rows == 1 else 'rows'}"
    return Layer(name, lambda part: nn.Linear(width // part, width // part), lambda part: (rows, width // part))


LAYERS = (
    _conv(3, 64, 28), _conv(3, 256, 14), _conv(1, 256, 14), _conv(3, 256, 14, depthwise=True), _linear(1024, 1),
    _linear(1024, 64),
)  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "element 50 %": {"amount": 0.5, "granularity": "element"},
    "element 90 %": {"amount": 0.9, "granularity": "element"},
    "vector 50 %": {"amount": 0.5, "granularity": "vector"},
    "kernel 50 %": {"amount": 0.5, "granularity": "kernel"},
    "2:4": {"granularity": "2:4"},
    "block:4x4 50 %": {"amount": 0.5, "granularity": "block:4x4"},
    "block:4x4 90 %": {"amount": 0.9, "granularity": "block:4x4"},
    "patterns:8x4": {"granularity": "patterns:8x4"},
    "rectangle:1x3": {"granularity": "rectangle:1x3"},
    "rectangle:2x2": {"granularity": "rectangle:2x2"},
}
POSITIONS = ((0, 1, 0), (1, 1, 1), (0, 0, 0))  # four of nine that are no rectangle
MASKED, GATHERED = "pattern, 4 of 9, masked", "pattern, 4 of 9, gathered"
HALF = "filter, half on both sides"
NAMES = [*VARIANTS, MASKED, GATHERED, HALF]


def variants(layer: Layer) -> Iterator[tuple[str, pj.Graph]]:
    """Yields the layer as it is, and pruned in each way that fits it."""
    yield "dense", captured(layer)
    for name, choices in VARIANTS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield name, pj.prune(captured(layer), **choices)
        except pj.PenjingError as misfit:
            if "fits no layer" not in str(misfit):
                raise
    masked = captured(layer)
    weight = masked.tensor("0.weight")
    if weight.shape[2:] == (3, 3):
        masked.masks["0.weight"] = torch.tensor(POSITIONS, dtype=torch.bool).expand_as(weight).clone()
        masked.apply_masks()
        yield MASKED, masked
        yield GATHERED, shrink_kernels(masked, form="gather")
    yield HALF, captured(layer, part=2)


def captured(layer: Layer, part: int = 1) -> pj.Graph:
    """Returns the layer with random weights, or what is left of it when only one in `part` channels stays."""
    torch.manual_seed(0)
    return pj.capture(nn.Sequential(layer.make(part)).eval(), torch.randn(layer.shape(part)))


Call = Callable[[], object]


def in_onnxruntime(_: pj.Graph, file: Path, given: np.ndarray) -> Call:
    """Returns a call of the file that Penjing writes."""
    session = load(file, options(threads=1))
    feed = {session.get_inputs()[0].name: given}
    return lambda: session.run(None, feed)


def in_openvino(_: pj.Graph, file: Path, given: np.ndarray) -> Call:
    """Returns a call of the same file, read by OpenVINO."""
    import openvino as ov

    model = ov.convert_model(file)
    model.reshape(given.shape)
    wanted = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(model, "CPU", wanted).create_infer_request()
    request.set_input_tensor(ov.Tensor(given))
    return request.infer


def in_litert(graph: pj.Graph, file: Path, given: np.ndarray) -> Call:
    """Returns a call of what litert-torch makes of the graph, with channels last as LiteRT wants them."""
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    module: nn.Module = graph.program
    if given.ndim == 4:
        module = litert_torch.to_channel_last_io(module, args=[0], outputs=[0])
        given = np.ascontiguousarray(given.transpose(0, 2, 3, 1))
    path = file.with_suffix(".tflite")
    litert_torch.convert(module, (torch.from_numpy(given),)).export(str(path))
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    return interpreter.invoke


def in_turns(calls: Mapping[str, Call]) -> dict[str, float]:
    """Returns the median milliseconds of each call; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(ROUNDS):
        for name in order:
            calls[name]()
            end = time.perf_counter() + BURST
            while time.perf_counter() < end:
                start = time.perf_counter()
                calls[name]()
                times[name].append(time.perf_counter() - start)
        order.reverse()
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


OPENED = {"onnxruntime": in_onnxruntime, "openvino": in_openvino, "litert": in_litert}


class Lowered:
    """A layer's variants and their files, made when they are first asked for."""

    def __init__(self, layer: Layer, folder: Path) -> None:
        self.layer, self.folder = layer, folder

    @cached_property
    def files(self) -> dict[str, tuple[pj.Graph, Path]]:
        """The graph and the ONNX file of each variant."""
        found = {}
        for at, (name, graph) in enumerate(variants(self.layer)):
            file = self.folder / f"{at}.onnx"
            pj.lower(graph, path=file)
            found[name] = graph, file
        return found

    def timed(self, runtime: str) -> dict[str, Any]:
        """Returns the median milliseconds of each variant, in turns."""
        calls: dict[str, Call] = {}
        for name, (graph, file) in self.files.items():
            shape = self.layer.shape(2 if name == HALF else 1)
            given = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
            calls[name] = OPENED[runtime](graph, file, given)
        return {"milliseconds": in_turns(calls)}

    def stored(self) -> dict[str, Any]:
        """Returns the bytes of each variant's file, as it is and deflated."""
        plain, deflated = {}, {}
        for name, (_, file) in self.files.items():
            archive = file.with_suffix(".zip")
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
                made.write(file, file.name)
            plain[name], deflated[name] = file.stat().st_size, archive.stat().st_size
        return {"plain": plain, "deflated": deflated}


def main(*asked: str) -> None:
    """Measures what is missing, then publishes a table for speed and one for size."""
    torch.set_num_threads(1)
    rows = Rows("pruning_execution")
    usable = [name for name, package in RUNTIMES.items() if (name in asked or not asked) and find_spec(package)]
    for layer in LAYERS:
        with tempfile.TemporaryDirectory() as folder:
            lowered = Lowered(layer, Path(folder))
            for runtime in usable:
                rows.once([runtime, layer.name], lambda lowered=lowered, runtime=runtime: lowered.timed(runtime))
            rows.once(["storage", layer.name], lowered.stored)
    speed = []
    for runtime in RUNTIMES:
        for layer in LAYERS:
            if rows.has([runtime, layer.name]):
                found = rows.get([runtime, layer.name])["milliseconds"]
                ratios = [f"{found['dense'] / found[name]:.2f}×" if name in found else "-" for name in NAMES]
                speed.append([runtime, layer.name, f"{found['dense']:.3f}", *ratios])
    publish("pruning_execution", ["runtime", "layer", "dense, ms", *NAMES], speed, {"runtimes": versions()})
    sizes = []
    for layer in LAYERS:
        row = rows.get(["storage", layer.name])
        for kind in ("plain", "deflated"):
            whole = row[kind]["dense"]
            ratios = [f"{whole / row[kind][name]:.2f}×" if name in row[kind] else "-" for name in NAMES]
            sizes.append([layer.name, kind, f"{whole:,}", *ratios])
    publish("pruning_storage", ["layer", "file", "dense, bytes", *NAMES], sizes)


def versions() -> dict[str, str]:
    """Names the runtimes that are installed."""
    packages = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai-edge-litert"}
    return {name: version(packages[name]) for name, package in RUNTIMES.items() if find_spec(package)}


if __name__ == "__main__":
    main(*sys.argv[1:])
