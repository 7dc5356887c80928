"""Processor seconds to prune ResNet-50 (224 pixels) by a criterion of gradients, beside bare passes over the same batches.

    python benchmarks/pruning_scoring_speed.py [CRITERION …]      # needs torchvision; "taylor" if none is named

One thread. Bare is what anybody pays who wants gradients: the user's own module in evaluation mode, forward, cross-entropy,
and backward to all parameters, and nothing done with them. Beside it stands all of `penjing.prune(…, allocation="global")`,
labelling and surgery included; capturing is not. The two take turns, and the ratio is the median over the turns.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penjing as pj
from _tables import publish
from penjing.data import Data
from penjing.tasks import Classification

BATCHES, SIZE, TURNS = 8, 16, 3


def seconds(call: Callable[[], object]) -> float:
    """Returns processor seconds, which on one thread are those of a machine that does nothing else."""
    start = time.process_time()
    call()
    return time.process_time() - start


def bare(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    for inputs, targets in batches:
        model.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()


def main(*criteria: str) -> None:
    """Measures each criterion in turns with bare passes."""
    from torchvision.models import resnet50

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = resnet50(weights=None).eval()
    batches = [(torch.randn(SIZE, 3, 224, 224), torch.randint(1000, (SIZE,))) for _ in range(BATCHES)]
    data = Data(batches, batches, None, Classification(1000))
    graph = pj.capture(model, batches[0][0][:2])
    bare(model, batches[:1])
    rows = []
    for criterion in criteria or ("taylor",):

        def scored(criterion: str = criterion) -> None:
            pj.prune(graph, 0.5, criterion=criterion, allocation="global", data=data, batches=BATCHES)

        turns = [(seconds(lambda: bare(model, batches)), seconds(scored)) for _ in range(TURNS)]
        before, after = (statistics.median(times) for times in zip(*turns, strict=True))
        ratio = statistics.median(scoring / passes for passes, scoring in turns)
        rows.append([criterion, f"{before:.1f}", f"{after:.1f}", f"{ratio:.2f}"])
    columns = [
        "criterion",
        f"bare passes, {BATCHES} × {SIZE} images, processor s",
        "the whole prune, processor s",
        "ratio",
    ]
    publish("pruning_scoring_speed", columns, rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
