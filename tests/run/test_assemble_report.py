"""The report of a run, put together from what its stages gave."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from penjing import report
from penjing.budget import Budget
from penjing.graph import capture
from penjing.pruning import prune
from penjing.run import stages
from penjing.run.assemble_report import assemble_report
from penjing.run.workspace import Workspace
from penjing.targets import lower
from report.report_samples import report as sample

MEASURED = ("target", "baseline", "compressed", "ratios", "parity", "integer_macs", "layers", "met")


@pytest.mark.parametrize(("granularity", "zeros"), [("element", 256), ("filter", 0)])
def test_the_report_counts_the_zeros_that_pruning_left(granularity, zeros, tmp_path):
    torch.manual_seed(0)
    graph = capture(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(2, 16))
    small = prune(graph, 0.5, granularity=granularity, include=["0"])
    space = Workspace(tmp_path, {"include": [], "exclude": [], "data": "", "model": ""}, lambda line: None)
    space.inner.mkdir(parents=True, exist_ok=True)
    lower(graph, path=space.inner / stages.lowered(".onnx"))
    lower(small, path=space.out / "model.onnx")
    made = sample()
    content = assemble_report(
        space,
        SimpleNamespace(budget=Budget(latency="0.5x"), seed=0, target="onnxruntime", suffix=".onnx"),  # type: ignore[arg-type]
        small,
        solution=SimpleNamespace(
            measured=(),
            plan=(),
            complete=True,
            short_of_time=False,
            taken=SimpleNamespace(meets=True, round_to=1, integer=False),
        ),  # type: ignore[arg-type]
        recovery=SimpleNamespace(notes=[], variant=None, short_of_time=False),  # type: ignore[arg-type]
        measured={key: made[key] for key in MEASURED} | {"missed": [], "warnings": []},
        inputs={},
        clock=SimpleNamespace(end=None, minutes=None),  # type: ignore[arg-type]
    )
    assert content["zeros"]["zeros"] == zeros and content["zeros"]["faster"] == 0
    assert (content["zeros"]["deflated_bytes"] is None) == (zeros == 0)
    page = report.write(content, tmp_path).read_text(encoding="utf-8")
    assert ('id="zeros"' in page) == (zeros > 0)
