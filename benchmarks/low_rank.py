"""What low rank brings: the speed of chains and of unfolded inputs, shape by shape, and accuracy by rank rule and metric.

python benchmarks/low_rank.py speed                                # single layers, in the runtimes that are installed
python benchmarks/low_rank.py accuracy RESNET56.safetensors CIFAR10.zip --train   # before any training, and after three epochs
python benchmarks/low_rank.py accuracy vgg16_cifar CIFAR10.zip --train             # the same of VGG-16, which is trained first
python benchmarks/low_rank.py files MNIST.npz                      # large dense layers, by svd and int8 together
python benchmarks/low_rank.py penalties RESNET20.safetensors CIFAR10.zip   # training towards low rank before the cut
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

import _low_rank_files
import _low_rank_penalties
import penjing as pj
from _pruning import HERE, Rows, judge, network
from _tables import earlier, publish
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

RULES: dict[str, dict[str, Any]] = {
    "speedup:2": {"ranks": "speedup:2"},
    "speedup:2, every rank": {"ranks": "speedup:2", "round_to": 1},
    "energy:0.9": {"ranks": "energy:0.9"},
    "vbmf": {"ranks": "vbmf"},
}
METRICS = ("weights", "outputs", "asymmetric", "loss")
NETWORKS = {"resnet56": "ResNet-56", "vgg16_cifar": "VGG-16"}
WHOLE = {"resnet56": ["conv1", "linear"], "vgg16_cifar": ["features.0", "classifier"]}  # first and last layer
MEASURED = {
    "resnet56": {
        "speedup:2, every rank": METRICS[:3], "speedup:2": METRICS, "energy:0.9": METRICS, "vbmf": METRICS,
    },
    "vgg16_cifar": {"speedup:2": METRICS[:3]},
}  # fmt: skip
TRAINED = {"speedup:2": ("outputs", "asymmetric", "weights"), "speedup:2, every rank": ("asymmetric", "weights")}
VGG_EPOCHS, VGG_LR = (
    6,
    0.05,
)  # the rate rises for a fifth of the steps, then falls: a base in less than an hour, not the best one
EPOCHS = 3


def main() -> None:
    """Runs what is missing of one table, or publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "accuracy", "files", "penalties", "time", "table"))
    parser.add_argument("given", type=Path, nargs="*", help="files, as above")
    parser.add_argument("--train", action="store_true", help="with accuracy: also three epochs of training")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    speeds, accuracies, times = Rows("low_rank_speed"), Rows("low_rank_accuracy"), Rows("low_rank_time")
    files, penalties = Rows("low_rank_files"), Rows("low_rank_penalties")
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
        measure_accuracy(*asked.given, asked.train, accuracies)
    elif asked.what == "files":
        _low_rank_files.measure(*asked.given, files)
    elif asked.what == "penalties":
        _low_rank_penalties.measure(*asked.given, penalties)
    elif asked.what == "time":
        times.once(["resnet50"], resources)
    else:
        speed_table(speeds)
        accuracy_table(accuracies)
        _low_rank_files.table(files)
        _low_rank_penalties.table(penalties)
        time_table(times)


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


def measure_accuracy(weights: Path, cifar10: Path, train: bool, rows: Rows) -> None:
    """Factorises a network by each rule and metric, and judges it on all test images before and after training."""
    data = pj.data.cifar10(cifar10, seed=0)
    name = "vgg16_cifar" if weights.name == "vgg16_cifar" else "resnet56"
    base = vgg(data) if name == "vgg16_cifar" else network(name, weights)
    rows.once(key_of(name, "base"), lambda: judge(base, data))
    for rule, some in MEASURED[name].items():
        for metric in some:
            rows.once(key_of(name, rule, metric), lambda r=rule, m=metric: before_training(name, base, data, r, m))
        for metric in TRAINED.get(rule, ()) if train else ():
            rows.once(
                key_of(name, rule, metric, EPOCHS), lambda r=rule, m=metric: after_training(name, base, data, r, m)
            )


def key_of(name: str, *rest: Any) -> list[Any]:
    """Returns the key of a row; rows of ResNet-56, the first network, don't name it."""
    return list(rest) if name == "resnet56" else [name, *rest]


def vgg(data: pj.Data) -> pj.Graph:
    """Returns VGG-16 for CIFAR, trained; its weights are kept."""
    kept = HERE / "out" / "low_rank_vgg16_cifar.penjing"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        torch.manual_seed(0)
        graph = pj.capture(pj.zoo.build("vgg16_cifar").eval(), pj.zoo.example_input("vgg16_cifar"))
        pj.recover(
            graph, data, epochs=VGG_EPOCHS, lr=VGG_LR, weight_decay=5e-4, warmup=0.2, seed=0, precision="bfloat16",
            channels_last=True, progress=False, checkpoint=kept.with_suffix(".pt"),
            report=lambda told: print("vgg16_cifar", told, flush=True),
        )  # fmt: skip
        graph.save(kept)
    return pj.load(kept)


def factorized(name: str, base: pj.Graph, data: pj.Data, rule: str, metric: str) -> pj.Graph:
    """Returns the network, its first and last layer whole."""
    return pj.factorize(base, **RULES[rule], metric=metric, data=data, exclude=WHOLE[name])


def before_training(name: str, base: pj.Graph, data: pj.Data, rule: str, metric: str) -> dict[str, Any]:
    """Returns accuracy, costs and seconds."""
    start = time.process_time()
    small = factorized(name, base, data, rule, metric)
    seconds = time.process_time() - start
    cost, whole = small.cost(), base.cost()
    return {
        **judge(small, data), "macs": cost.macs / whole.macs, "params": cost.params / whole.params, "seconds": seconds,
    }  # fmt: skip


def after_training(name: str, base: pj.Graph, data: pj.Data, rule: str, metric: str) -> dict[str, Any]:
    """Returns the accuracy after three epochs with the original as teacher."""
    small = factorized(name, base, data, rule, metric)
    checkpoint = (
        HERE / "out" / f"low_rank_{name}_{rule}_{metric}.pt".replace(":", "-").replace(", ", "-").replace(" ", "-")
    )
    checkpoint.parent.mkdir(exist_ok=True)
    pj.recover(
        small, data, teacher=base, epochs=EPOCHS, seed=0, checkpoint=checkpoint, precision="bfloat16", channels_last=True,
        progress=False, report=lambda told: print(name, rule, metric, told, flush=True),
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


def speed_table(speeds: Rows) -> None:
    """Publishes what is finished of the speeds."""
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


def accuracy_table(accuracies: Rows) -> None:
    """Publishes what is finished of the accuracies, and those published before that weren't measured anew."""
    kept, out = earlier("low_rank_accuracy", 3), []
    for name, title in NETWORKS.items():
        ways = [(rule, metric) for rule in RULES for metric in METRICS]
        if accuracies.has(key_of(name, "base")):
            base = accuracies.get(key_of(name, "base"))["accuracy"]
            kept[title, "the original", ""] = [title, "the original", "", "100 %", f"{base:.2%}", "", ""]
        for rule, metric in ways:
            if accuracies.has(key_of(name, rule, metric)):
                row = accuracies.get(key_of(name, rule, metric))
                key = key_of(name, rule, metric, EPOCHS)
                after = f"{accuracies.get(key)['accuracy']:.2%}" if accuracies.has(key) else ""
                found = [f"{row['macs']:.0%}", f"{row['accuracy']:.2%}", after, f"{row['seconds']:.0f}"]
                kept[title, rule, metric] = [title, rule, metric, *found]
        out += [kept[title, *way] for way in [("the original", ""), *ways] if (title, *way) in kept]
    if out:
        columns = [
            "network",
            "rank rule",
            "metric",
            "MACs left",
            "before training",
            f"after {EPOCHS} epochs",
            "seconds",
        ]
        publish("low_rank_accuracy", columns, out)


def time_table(times: Rows) -> None:
    """Publishes seconds and memory."""
    if times.has(["resnet50"]):
        row = times.get(["resnet50"])
        publish(
            "low_rank_time",
            ["network", "MACs left", "seconds, one thread", "memory that it took, in sizes of the weights"],
            [["ResNet-50, 224 pixels", f"{row['macs']:.0%}", f"{row['seconds']:.1f}", f"{row['grown']:.2f}"]],
        )


if __name__ == "__main__":
    main()
