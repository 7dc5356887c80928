"""Ops that the exporter doesn't know are written out, and give the same in the runtime."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import penjing as pj
from penjing.targets import run


class Windows(nn.Module):
    """Attention within windows: two batch axes."""

    def __init__(self, mask: tuple[int, ...] | None) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.mask = None if mask is None else nn.Parameter(torch.randn(mask))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        windows = self.qkv(x).reshape(b, 4, n // 4, 3, 2, c // 2).permute(3, 0, 1, 4, 2, 5)
        q, k, v = windows.unbind(0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask).transpose(2, 3).reshape(b, n, c)


class MergedHeads(nn.Module):
    """Attention whose heads stand in the batch axis, with a mask for each."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).reshape(3, b * 2, n, c // 2).unbind(0)
        mask = torch.stack([mask, -mask], 1).reshape(b * 2, n, n)
        return (
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(b, 2, n, c // 2).transpose(1, 2).flatten(2)
        )


class Pooled(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv, self.size = nn.Conv2d(3, 4, 3), size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(self.conv(x), self.size)


class Several(nn.Module):
    """Networks of one input side by side, in one file."""

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: network(x) for name, network in self.networks.items()}


def assert_all_run(networks: dict[str, nn.Module], example: Tensor, x: Tensor, path: Path) -> None:
    graph = pj.capture(Several(networks).eval(), example)
    given, wanted = run(pj.lower(graph, "onnxruntime", path), x), graph(x)
    assert given.keys() == wanted.keys() == networks.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(
            given[name], value, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_attention_over_windows_runs(tmp_path):
    masks = [None, (3, 3), (2, 3, 3), (4, 1, 3, 3), (1, 4, 2, 3, 3)]
    networks = {f"mask of {mask}": Windows(mask) for mask in masks}
    assert_all_run(networks, torch.randn(2, 12, 8), torch.randn(3, 12, 8), tmp_path / "m.onnx")


def test_attention_with_heads_in_the_batch_runs(tmp_path):
    graph = pj.capture(MergedHeads().eval(), (torch.randn(2, 6, 8), torch.randn(2, 6, 6)))
    artifact = pj.lower(graph, "onnxruntime", tmp_path / "m.onnx")
    given = torch.randn(3, 6, 8), torch.randn(3, 6, 6)
    torch.testing.assert_close(run(artifact, *given), graph(*given), atol=1e-5, rtol=1e-4)


def test_adaptive_max_pooling_runs(tmp_path):
    networks = {f"to {size}": Pooled(size) for size in ((1, 1), (3, 4), (7, 5))}
    assert_all_run(networks, torch.randn(2, 3, 12, 11), torch.randn(3, 3, 12, 11), tmp_path / "m.onnx")


def test_what_is_written_out_is_traced_to_the_op_that_it_stands_for(tmp_path):
    graph = pj.capture(Windows(None).eval(), torch.randn(2, 12, 8))
    rows = pj.targets.profile(pj.lower(graph, path=tmp_path / "model.onnx"))
    # The runtime names some nodes that it fuses after nothing.
    assert {row.node for row in rows if row.macs} - {None} == {row.node for row in graph.cost().rows if row.macs}
