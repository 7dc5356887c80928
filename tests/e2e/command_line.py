"""What the tests of the command line share: a user's network and photos, and what a command did."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMPRESS = ("compress", "net.py:small", "--data", "folder:photos", "--size", "0.35x", "--drop", "0.4", "--epochs", "60")

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 32, 3, 2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Moody(Net):
    def forward(self, x):
        x = super().forward(x)
        if x.sum() > 0:
            return x
        return -x


def small():
    torch.manual_seed(0)
    return fitted(Net())


def moody():
    return Moody()


def grey():
    return Net(channels=1)


def plain():
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


def fails():
    raise RuntimeError("the licence server sleeps")


def number():
    return 7


def ten():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def fitted(net):
    # As if it had been trained: its head tells the strongest colour of pictures like the user's, normalised as ImageNet's.
    classes = torch.arange(60) % 3
    pixels = 150 * torch.rand(60, 3, 24, 24)
    pixels[torch.arange(60), 2 - classes] += 60  # blue, green, red
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    net.eval()
    with torch.no_grad():
        features = net.body(net.stem(pixels)).mean((2, 3))
        features = torch.cat([features, torch.ones(60, 1)], 1)
        solution = torch.linalg.lstsq(features, torch.eye(3)[classes]).solution
        solution = (solution * 256).round() / 256  # the same in every process, to the bit
        net.head.weight.copy_(solution[:-1].T)
        net.head.bias.copy_(solution[-1])
    return net.train()
"""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


def draw(folder: Path, count: int, seed: int) -> None:
    """Writes pictures whose strongest colour is their class."""
    generator = np.random.default_rng(seed)
    for channel, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 150, (24, 24, 3))
            pixels[..., channel] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
