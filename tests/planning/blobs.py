"""A network that learnt where points come from, in a second."""

import torch
from torch import nn

import penjing as pj

CENTRES = torch.randn(8, 12, generator=torch.Generator().manual_seed(3))


def points(seed: int, count: int = 512) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns batches of points around the centres, and which."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(8, (count,), generator=generator)
    x = CENTRES[label] + 0.7 * torch.randn(count, 12, generator=generator)
    return list(zip(x.split(64), label.split(64), strict=True))


def learnt() -> tuple[pj.Graph, pj.Data]:
    """Returns the network, of layers that bear rounding differently well, and its data."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 24), nn.ReLU(), nn.Linear(24, 8)
    )  # fmt: skip
    graph = pj.capture(net, torch.randn(2, 12))
    data = pj.Data(points(1), points(1)[:2], points(2), pj.tasks.Classification(8))
    pj.recover(graph, data, epochs=20, lr=0.02, precision="float32", channels_last=False, progress=False)
    return graph, data
