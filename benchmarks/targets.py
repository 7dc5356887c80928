"""The same networks on every runtime, in floating point and quantised by the defaults for that runtime.

    python benchmarks/targets.py run CIFAR10.zip RESNET20.safetensors RESNET56.safetensors PHOTOS.zip [--networks NAME …]
    python benchmarks/targets.py time
    python benchmarks/targets.py table

Networks: ResNet-20 and ResNet-56, trained on CIFAR-10, EfficientNet-Lite0 as PyPI has it, on photos (where its package is
installed), and the rest of the zoo, untrained. Runtimes: all that are installed. A pair of a network and a runtime that is
finished isn't run again. `time` measures the files once more, all in a row: call it while nothing else runs. `table` keeps rows
that were published before with the same versions on the same machine.

Each runtime is measured in a process of its own, one thread, one image a call, the float and the int8 file in turns. Agreement is
the share of images with the same first answer as the float network in PyTorch; the signal-to-noise ratio is that of the outputs.
Where NNCF is installed, its int8 files of the trained networks take turns with those of Penjing on OpenVINO.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import penjing as pj
from _quantisation_methods import Job, nncf
from _quantisation_subjects import LITE0, lite0
from _rows import HERE, Rows
from _tables import publish, with_earlier
from penjing import targets, zoo

ROWS = Rows("targets")
FILES = HERE / "out" / "targets"
CALIBRATING, JUDGING = 200, 500  # images of CIFAR-10
CIFAR10 = 32  # pixels of a side
BATCH = 50  # images a call while answers are collected
LOADS = 5  # times that a file is loaded; the median counts
OPENVINO, BY_NNCF = "openvino", "openvino by NNCF"
TRAINED = ("resnet20", "resnet56")
UNTRAINED = tuple(name for name in zoo.networks if name not in TRAINED)


@dataclass(frozen=True)
class Subject:
    """A network with images, as inputs.

    Attributes:
        network: in evaluation mode.
        calibration: (N, C, H, W).
        images: those on which answers are compared, (N, C, H, W).
    """

    network: nn.Module
    calibration: Tensor
    images: Tensor


def run(given: argparse.Namespace) -> None:
    """Measures every pair that isn't finished."""
    makers: dict[str, Callable[[], Subject]] = {
        **{name: partial(of_cifar10, given.cifar10, name, getattr(given, name)) for name in TRAINED},
        LITE0: partial(of_photos, given.photos),
        **{name: partial(untrained, name, given.cifar10, given.photos) for name in UNTRAINED},
    }
    usable = [one.name for one in targets.available() if one.usable and one.name != "torch" and ":" not in one.name]
    if OPENVINO in usable and find_spec("nncf"):
        usable.append(BY_NNCF)
    for name in given.networks or makers:
        left = [
            target
            for target in usable
            if not ROWS.has([name, target]) and not (target == BY_NNCF and name in UNTRAINED)
        ]
        if not left:
            continue
        try:
            subject = makers[name]()
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error}")
            continue
        for target in left:
            ROWS.once([name, target], partial(row_of_nncf if target == BY_NNCF else row, name, target, subject))


def of_cifar10(images: Path, name: str, weights: Path) -> Subject:
    """Returns a trained network of the zoo with images of CIFAR-10."""
    network = zoo.build(name).eval()
    network.load_state_dict(load_file(weights))
    return Subject(network, *cifar10(images))


def of_photos(images: Path) -> Subject:
    """Returns EfficientNet-Lite0 with photos."""
    found = lite0(images, None)
    return Subject(found.network, found.calibration, found.validation)


def untrained(name: str, small: Path, large: Path) -> Subject:
    """Returns an untrained network of the zoo with images of its size: of CIFAR-10, cut and grey for a LeNet, or photos."""
    torch.manual_seed(0)
    network = zoo.build(name).eval()
    channels, height, width = zoo.networks[name].shape
    if height > CIFAR10:
        photos = of_photos(large)
        return Subject(network, photos.calibration, photos.images)
    calibration, images = (part[..., :height, :width] for part in cifar10(small))
    if channels == 1:
        calibration, images = (part.mean(1, keepdim=True) for part in (calibration, images))
    return Subject(network, calibration, images)


def cifar10(images: Path) -> tuple[Tensor, Tensor]:
    """Returns images of CIFAR-10 to calibrate with, and others to judge by."""
    data = pj.data.cifar10(images)
    assert data.calibration is not None and data.validation is not None
    calibration, judged = (torch.cat([x for x, _ in part]) for part in (data.calibration, data.validation))
    return calibration[:CALIBRATING], judged[:JUDGING]


def row(name: str, target: str, subject: Subject) -> dict[str, Any]:
    """Lowers a network in floating point and in integers, and measures both files."""
    FILES.mkdir(parents=True, exist_ok=True)
    suffix = targets.find_target(target).suffix
    graph, images = pj.capture(subject.network, subject.calibration[:2]), subject.images
    small = pj.quantize(graph, list(subject.calibration.split(BATCH)), target=target)
    files, seconds = {}, {}
    for kind, one in (("float", graph), ("int8", small)):
        start = time.monotonic()
        files[kind] = pj.lower(one, target, FILES / f"{name}-{target}-{kind}{suffix}")
        seconds[kind] = round(time.monotonic() - start, 1)
    return {
        **timed(files),
        "lowering_seconds": seconds,
        **judged(files, answers(graph, images), images),
        "integer": targets.integer_macs(files["int8"], small.cost()),
    }


def row_of_nncf(name: str, target: str, subject: Subject) -> dict[str, Any]:
    """Quantises a network by NNCF, with its defaults, and measures the file beside the float one and Penjing's."""
    graph = pj.capture(subject.network, subject.calibration[:2])
    onnx = pj.lower(graph, "onnxruntime", FILES / f"{name}-for-nncf.onnx").path
    job = Job(onnx, onnx, onnx, subject.calibration, FILES / f"{name}-{target.replace(' ', '-')}")
    *_, written = nncf(job, fast_bias_correction=True)
    assert isinstance(written, Path)
    files = {**of_openvino(name, ("float", "int8")), "int8": targets.open_artifact(written, OPENVINO)}
    return {
        **timed(files, of_openvino(name, ("int8",))["int8"]),
        "by": f"NNCF {version('nncf')}",
        **judged(files, answers(graph, subject.images), subject.images),
        "integer": targets.integer_macs(files["int8"], graph.cost()),
    }


def of_openvino(name: str, kinds: Iterable[str]) -> dict[str, targets.Artifact]:
    """Opens the files that were written for OpenVINO before."""
    suffix = targets.find_target(OPENVINO).suffix
    return {kind: targets.open_artifact(FILES / f"{name}-{OPENVINO}-{kind}{suffix}", OPENVINO) for kind in kinds}


def judged(files: dict[str, targets.Artifact], expected: Tensor, images: Tensor) -> dict[str, Any]:
    """Compares what files answer with what the float network does."""
    found = {kind: answers(targets.session(file), images) for kind, file in files.items()}
    return {
        "agreement": {kind: same(one, expected) for kind, one in found.items()},
        "snr": {kind: snr(one, expected) for kind, one in found.items()},
    }


def timed(files: dict[str, targets.Artifact], ours: targets.Artifact | None = None) -> dict[str, Any]:
    """Measures a network's float and int8 file in turns, in a process of their own, and beside a peer's int8 file ours."""
    together = files if ours is None else {**files, "ours": ours}
    measured = targets.measure_together(together, bench=targets.FreshProcess(), runs=1000, seconds=20)
    faster = targets.speedup(measured["float"].latency_ms, measured["int8"].latency_ms)
    beside = measured.pop("ours", None)
    return {
        **({"of_ours": targets.speedup(beside.latency_ms, measured["int8"].latency_ms).value} if beside else {}),
        "runtime": measured["float"].runtime,
        "milliseconds": {kind: one.latency_ms.median for kind, one in measured.items()},
        "undisturbed": {kind: one.latency_ms.undisturbed for kind, one in measured.items()},
        "faster": {"value": faster.value, "low": faster.low, "high": faster.high, "calm": faster.calm},
        "bytes": {kind: one.size_bytes for kind, one in measured.items()},
        "memory": {kind: one.model_memory_bytes for kind, one in measured.items()},
        "loading": {kind: loading(file) for kind, file in files.items()},
    }


def time_again() -> None:
    """Measures the files of every finished pair once more."""
    for name, target in [row["key"] for row in ROWS.rows.values() if len(row["key"]) == 2]:
        if target == BY_NNCF:
            peer = (FILES / f"{name}-{target.replace(' ', '-')}").with_suffix(".xml")
            both = of_openvino(name, ("float", "int8"))
            files, ours = {**both, "int8": targets.open_artifact(peer, OPENVINO)}, both["int8"]
            ROWS.once([name, target, "again"], partial(timed, files, ours))
            continue
        suffix = targets.find_target(target).suffix
        paths = {kind: FILES / f"{name}-{target}-{kind}{suffix}" for kind in ("float", "int8")}
        files = {kind: targets.open_artifact(path, target) for kind, path in paths.items()}
        ROWS.once([name, target, "again"], partial(timed, files))


def answers(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Returns the outputs for all images."""
    if isinstance(network, pj.Graph):
        network.eval()
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(BATCH)])


def loading(file: targets.Artifact) -> float:
    """Returns the milliseconds from the file to a session that is ready."""
    taken = []
    for _ in range(LOADS):
        start = time.perf_counter()
        targets.find_target(file.target).session(file, 1)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)


def same(found: Tensor, expected: Tensor) -> float:
    """Returns the share of images with the same first answer."""
    return float((found.argmax(1) == expected.argmax(1)).double().mean())


def snr(found: Tensor, expected: Tensor) -> float:
    """Returns the signal-to-noise ratio of the outputs in decibels."""
    noise = (found - expected).double().square().sum()
    return 10 * math.log10(float(expected.double().square().sum() / noise)) if noise else math.inf


def table() -> None:
    """Writes the table into the page of results."""
    rows = []
    pairs = [row for row in ROWS.rows.values() if len(row["key"]) == 2]
    for found in sorted(pairs, key=lambda one: one["key"]):
        found = {**found, **(ROWS.get([*found["key"], "again"]) if ROWS.has([*found["key"], "again"]) else {})}
        faster = found["faster"]
        shown = found["milliseconds"] if faster["calm"] else found["undisturbed"]
        rows.append(
            [
                found["key"][0] + (" (untrained)" if found["key"][0] in UNTRAINED else ""),
                found["runtime"] + (f", int8 by {found['by']}" if "by" in found else ""),
                f"{shown['float']:.2f} → {shown['int8']:.2f} ms",
                f"{faster['value']:.2f}×"
                + ("" if faster["calm"] else " (disturbed)")
                + (f", {found['of_ours']:.2f}× of Penjing's speed" if "by" in found else ""),
                " → ".join(f"{found['bytes'][kind] / 1e3:,.0f}" for kind in ("float", "int8")) + " kB",
                " → ".join(f"{found['loading'][kind]:.0f}" for kind in ("float", "int8")) + " ms",
                " → ".join(_megabytes(found["memory"][kind]) for kind in ("float", "int8")),
                f"{found['agreement']['int8']:.1%}",
                f"{found['snr']['float']:.0f}, {found['snr']['int8']:.0f} dB",
                f"{found['integer']:.1%}",
            ]
        )
    columns = [
        "network", "runtime", "latency, float → int8", "faster", "files", "loading", "memory of the model", "same answers, int8",
        "signal to noise, float, int8", "MACs in integers",
    ]  # fmt: skip
    publish("targets", columns, with_earlier("targets", rows, 2))


def _megabytes(count: int | None) -> str:
    return "–" if count is None else f"{count / 1e6:.0f} MB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    for argument in ("cifar10", "resnet20", "resnet56", "photos"):
        running.add_argument(argument, type=Path)
    running.add_argument("--networks", nargs="+", help="names of the networks to run; all by default")
    commands.add_parser("time")
    commands.add_parser("table")
    given = parser.parse_args()
    if given.command == "run":
        run(given)
    elif given.command == "time":
        time_again()
    else:
        table()
