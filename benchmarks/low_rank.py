"""What low rank brings: the speed of chains and of unfolded inputs, shape by shape, and accuracy by rank rule and metric.

python benchmarks/low_rank.py speed                                # single layers, in the runtimes that are installed
python benchmarks/low_rank.py accuracy RESNET56.safetensors CIFAR10.zip    # before any training, and after three epochs
python benchmarks/low_rank.py time                                 # seconds and memory for all layers of ResNet-50
python benchmarks/low_rank.py table                                # publishes what is finished

Speed: one thread, batch 1; the variants of a layer take turns, and a number is the layer's median time over the variant's, each
in the same numbers, float or int8. Finished rows are not run again.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import penjing as pj
from _pruning import HERE, Rows, judge, network
from _tables import publish
from penjing.factorization import k_max
from pruning_execution import OPENED, RUNTIMES, in_turns, versions

LAYERS = {  # channels, size of the kernel, size of the image
    "3×3, 64 channels, 28×28": (64, 3, 28),
    "3×3, 128 channels, 14×14": (128, 3, 14),
    "3×3, 256 channels, 14×14": (256, 3, 14),
    "3×3, 512 channels, 7×7": (512, 3, 7),
    "1×1, 256 channels, 14×14": (256, 1, 14),
    "5×5, 64 channels, 14×14": (64, 5, 14),
}
LINEAR = {"linear, 1024→1024": 1024}
SPEEDUPS = (2, 4)
METHODS = ("tucker2", "svd", "spatial", "cp", "tt")
CALIBRATION = 64  # random samples for the ranges of int8

RULES = ("speedup:2", "energy:0.9", "vbmf")
METRICS = ("weights", "outputs", "asymmetric", "loss")
TRAINED = {"speedup:2": ("weights", "outputs", "asymmetric")}
EPOCHS = 3


def main() -> None:
    """Runs what is missing of one table, or publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "accuracy", "time", "table"))
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--train", action="store_true", help="with accuracy: also three epochs of training")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    speeds, accuracies, times = Rows("low_rank_speed"), Rows("low_rank_accuracy"), Rows("low_rank_time")
    if asked.what == "speed":
        for name in (*LAYERS, *LINEAR):
            with tempfile.TemporaryDirectory() as folder:
                files: dict[str, Path] = {}
                for runtime in ("onnxruntime", "openvino"):
                    if find_spec(RUNTIMES[runtime]):
                        speeds.once(
                            [runtime, name], lambda n=name, r=runtime, d=folder, f=files: timed(n, r, Path(d), f)
                        )
    elif asked.what == "accuracy":
        measure_accuracy(asked, accuracies)
    elif asked.what == "time":
        times.once(["resnet50"], resources)
    else:
        tables(speeds, accuracies, times)


# Speed


def layer(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns a layer with random weights, and its input's shape without the batch."""
    torch.manual_seed(0)
    if name in LINEAR:
        return nn.Linear(LINEAR[name], LINEAR[name]), (LINEAR[name],)
    channels, kernel, size = LAYERS[name]
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2), (channels, size, size)


def variants(graph: pj.Graph) -> Iterator[tuple[str, pj.Graph]]:
    """Yields the layer as it is, and factorised in all ways that fit it, in both forms."""
    yield "dense", graph
    for method in METHODS:
        for speedup in SPEEDUPS:
            for step in (1, 16):
                for form in ("chain", "unfold"):
                    if form == "unfold" and (method == "cp" or step == 1):
                        continue
                    try:
                        small = pj.factorize(
                            graph, method=method, ranks=f"speedup:{speedup}", round_to=step, form=form, metric="weights"
                        )
                    except pj.PenjingError as misfit:
                        if "No layer can be factorised" not in str(misfit):
                            raise
                        continue
                    yield f"{method}, {speedup}×, ranks in {step}s, {form}", small


def files_of(name: str, folder: Path, numbers: str) -> dict[str, Path]:
    """Returns the file of each variant, in float or in int8."""
    module, shape = layer(name)
    graph = pj.capture(nn.Sequential(module).eval(), torch.randn(2, *shape))
    found = {}
    for at, (variant, small) in enumerate(variants(graph)):
        file = folder / f"{numbers}-{at}.onnx"
        made = pj.quantize(small, [torch.randn(CALIBRATION, *shape)]) if numbers == "int8" else small
        pj.lower(made, path=file)
        found[variant] = file
    return found


def timed(name: str, runtime: str, folder: Path, files: dict[str, Any]) -> dict[str, Any]:
    """Returns the median milliseconds of each variant, in float and in int8, in turns."""
    _, shape = layer(name)
    found: dict[str, Any] = {}
    given = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    for numbers in ("float", "int8"):
        if numbers not in files:
            files[numbers] = files_of(name, folder, numbers)
        calls = {variant: OPENED[runtime](None, file, given) for variant, file in files[numbers].items()}
        found[numbers] = in_turns(calls)
    return found


# Accuracy


def measure_accuracy(asked: argparse.Namespace, rows: Rows) -> None:
    """Factorises ResNet-56 by each rule and metric, and judges it on all test images before and after training."""
    base, data = network("resnet56", asked.weights), pj.data.cifar10(asked.data, seed=0)
    rows.once(["base"], lambda: judge(base, data))
    for rule in RULES:
        for metric in METRICS:
            rows.once([rule, metric], lambda rule=rule, metric=metric: before_training(base, data, rule, metric))
    for rule, some in TRAINED.items() if asked.train else ():
        for metric in some:
            rows.once([rule, metric, EPOCHS], lambda rule=rule, metric=metric: after_training(base, data, rule, metric))


def factorized(base: pj.Graph, data: pj.Data, rule: str, metric: str) -> pj.Graph:
    """Returns the network, its first and last layer whole."""
    return pj.factorize(base, ranks=rule, metric=metric, data=data, exclude=["conv1", "linear"])


def before_training(base: pj.Graph, data: pj.Data, rule: str, metric: str) -> dict[str, Any]:
    """Returns accuracy, costs and seconds."""
    start = time.process_time()
    small = factorized(base, data, rule, metric)
    seconds = time.process_time() - start
    cost, whole = small.cost(), base.cost()
    return {
        **judge(small, data), "macs": cost.macs / whole.macs, "params": cost.params / whole.params, "seconds": seconds,
    }  # fmt: skip


def after_training(base: pj.Graph, data: pj.Data, rule: str, metric: str) -> dict[str, Any]:
    """Returns the accuracy after three epochs with the original as teacher."""
    small = factorized(base, data, rule, metric)
    checkpoint = HERE / "out" / f"low_rank_{rule}_{metric}.pt".replace(":", "-")
    checkpoint.parent.mkdir(exist_ok=True)
    pj.recover(
        small, data, teacher=base, epochs=EPOCHS, seed=0, checkpoint=checkpoint, precision="bfloat16", channels_last=True,
        progress=False, report=lambda told: print(rule, metric, told, flush=True),
    )  # fmt: skip
    return {**judge(small, data), "macs": small.cost().macs / base.cost().macs}


# Time


def resources() -> dict[str, Any]:
    """Returns the seconds of decomposing ResNet-50 on one thread, and by how much its memory grew at most."""
    tiny = pj.capture(nn.Sequential(nn.Linear(8, 8)), torch.randn(2, 8))
    pj.factorize(tiny, ranks=2, method="svd")  # loads all that it needs
    torch.manual_seed(0)
    graph = pj.capture(resnet50(), torch.randn(2, 3, 224, 224))
    weights = sum(one.numel() * one.element_size() for one in graph.parameters())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    small = pj.factorize(graph, ranks="speedup:2", metric="weights")
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"seconds": seconds, "grown": grown / weights, "macs": small.cost().macs / graph.cost().macs}


def resnet50() -> nn.Module:
    """Returns a network with the layers of ResNet-50 (He et al., 2016), with random weights."""

    class Bottleneck(nn.Module):
        def __init__(self, ins: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(ins, width, 1), nn.Conv2d(width, width, 3, stride, 1)
            self.conv3 = nn.Conv2d(width, 4 * width, 1)
            self.shortcut = nn.Conv2d(ins, 4 * width, 1, stride) if stride > 1 or ins != 4 * width else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.conv2(torch.relu(self.conv1(x))))
            return torch.relu(self.conv3(y) + self.shortcut(x))

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    ins = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        for block in range(count):
            layers.append(Bottleneck(ins, 64 * 2**stage, 2 if stage and not block else 1))
            ins = 256 * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)).eval()


# Tables


def tables(speeds: Rows, accuracies: Rows, times: Rows) -> None:
    """Publishes what is finished."""
    rows = []
    for name in (*LAYERS, *LINEAR):
        for runtime in ("onnxruntime", "openvino"):
            if not speeds.has([runtime, name]):
                continue
            found = speeds.get([runtime, name])
            for variant in found["float"]:
                if variant == "dense":
                    continue
                ratios = [found[numbers]["dense"] / found[numbers][variant] for numbers in ("float", "int8")]
                rows.append([name, runtime, variant, *(f"{ratio:.2f}×" for ratio in ratios)])
    if rows:
        more = {"versions": versions(), "closed form": {f"{m}×": k_max(1, 9, m) for m in SPEEDUPS}}
        publish("low_rank_speed", ["layer", "runtime", "factorised", "float", "int8"], rows, more)
    if accuracies.has(["base"]):
        base = accuracies.get(["base"])["accuracy"]
        out = [["the original", "", "100 %", f"{base:.2%}", "", ""]]
        for rule in RULES:
            for metric in METRICS:
                if accuracies.has([rule, metric]):
                    row = accuracies.get([rule, metric])
                    key = [rule, metric, EPOCHS]
                    after = f"{accuracies.get(key)['accuracy']:.2%}" if accuracies.has(key) else ""
                    seconds = f"{row['seconds']:.0f}"
                    out.append([rule, metric, f"{row['macs']:.0%}", f"{row['accuracy']:.2%}", after, seconds])
        publish(
            "low_rank_accuracy",
            ["rank rule", "metric", "MACs left", "before training", f"after {EPOCHS} epochs", "seconds"],
            out,
        )
    if times.has(["resnet50"]):
        row = times.get(["resnet50"])
        publish(
            "low_rank_time",
            ["network", "MACs left", "seconds, one thread", "memory that it took, in sizes of the weights"],
            [["ResNet-50, 224 pixels", f"{row['macs']:.0%}", f"{row['seconds']:.1f}", f"{row['grown']:.2f}"]],
        )


if __name__ == "__main__":
    main()
