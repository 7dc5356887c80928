"""Networks of large dense layers, made small by a singular value decomposition and int8 together: file size and accuracy."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import penjing as pj
from _pruning import HERE, Rows, judge
from _tables import publish

RANKS = "ratio:0.25"  # of the dense layers' full ranks
TRAINING: dict[str, Any] = {"precision": "float32", "channels_last": False, "progress": False, "seed": 0}
BASE: dict[str, Any] = {"epochs": 3, "optimizer": "adamw", "lr": 1e-3, **TRAINING}
TUNING: dict[str, Any] = {"epochs": 1, "optimizer": "adamw", "lr": 3e-4, **TRAINING}


class Vgg(nn.Module):
    """Four convolutions, and the dense head of VGG (Simonyan and Zisserman, 2014) at half its width, for 28 × 28 pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ins, outs in ((1, 32), (32, 64)):
            layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU(), nn.Conv2d(outs, outs, 3, padding=1), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc6, self.fc7, self.fc8 = nn.Linear(3136, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, 10)."""
        y = torch.relu(self.fc6(self.features(x).flatten(1)))
        return self.fc8(torch.relu(self.fc7(y)))


class Recurrent(nn.Module):
    """An LSTM over the 28 rows of an image, and two large dense layers over all that it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 256, batch_first=True)
        self.fc1, self.fc2, self.fc3 = nn.Linear(28 * 256, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, 10)."""
        y = torch.relu(self.fc1(self.lstm(x.squeeze(1))[0].flatten(1)))
        return self.fc3(torch.relu(self.fc2(y)))


NETWORKS: dict[str, tuple[type[nn.Module], list[str]]] = {
    "like VGG, 11 M parameters": (Vgg, ["fc6", "fc7"]),
    "LSTM and dense layers, 9 M parameters": (Recurrent, ["fc1", "fc2"]),
}  # with the names of the layers that are factorised
WAYS = {"float32": (False, False), "int8": (False, True), "svd": (True, False), "svd, int8": (True, True)}


def measure(mnist: Path, rows: Rows) -> None:
    """Trains each network, and judges it on all test images in each of the ways."""
    data = pj.data.mnist(mnist)
    for name in NETWORKS:
        rows.once([name], lambda name=name: one(name, data))


def one(name: str, data: pj.Data) -> dict[str, Any]:
    """Returns accuracy and bytes of the file of each way."""
    network, dense = NETWORKS[name]
    torch.manual_seed(0)
    base = pj.capture(network().eval(), torch.randn(2, 1, 28, 28))
    kept = HERE / "out" / f"low_rank_{network.__name__.lower()}.pt"
    kept.parent.mkdir(exist_ok=True)
    pj.recover(base, data, checkpoint=kept, **BASE)
    small = pj.factorize(base, method="svd", ranks=RANKS, include=dense, data=data)
    pj.recover(small, data, teacher=base, **TUNING)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, (cut, integer) in WAYS.items():
            graph = small if cut else base
            graph = pj.quantize(graph, data) if integer else graph
            file = pj.lower(graph, path=Path(folder) / f"{len(found)}.onnx")
            found[way] = {"bytes": file.size_bytes, "params": graph.cost().params, **judge(graph, data)}
    return found


def table(rows: Rows) -> None:
    """Publishes what is finished."""
    out = []
    for name in NETWORKS:
        if rows.has([name]):
            found = rows.get([name])
            base = found["float32"]
            for way in WAYS:
                own = found[way]
                smaller, lost = base["bytes"] / own["bytes"], 100 * (base["accuracy"] - own["accuracy"])
                size = f"{own['bytes'] / 1e6:.2f} MB"
                out.append([name, way, size, f"{smaller:.1f}×", f"{own['accuracy']:.2%}", f"{lost:.2f}"])
    if out:
        publish("low_rank_files", ["network", "weights", "file", "smaller", "accuracy", "points lost"], out)
