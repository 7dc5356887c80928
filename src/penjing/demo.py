"""The main job on built-in data: train a small network on digits, compress it for ONNX Runtime, measure both."""

from collections.abc import Callable
from pathlib import Path

import torch

from penjing import zoo
from penjing.budget import Budget
from penjing.compress import Result, compress
from penjing.data import digits
from penjing.graph import capture
from penjing.run.lock import locked
from penjing.run.progress import Progress
from penjing.run.workspace import INNER, check_folder
from penjing.tasks import evaluate
from penjing.training import recover

BUDGET = Budget(latency="0.5x", size="0.25x", drop=0.01)
NETWORK = "resnet20"
TRAIN_EPOCHS = 12
RECOVER_EPOCHS = 6


def demo(
    out: Path | str = "penjing-demo",
    *,
    seed: int = 0,
    say: Callable[[str], None] = print,
    watch: Callable[[Progress], None] | None = None,
) -> Result:
    """Trains `zoo:resnet20` on scikit-learn's digits and compresses it to half the latency and a quarter of the size.

    Args:
        out: folder for everything that is written; called again with the same folder, it goes on where it stopped.
        seed: of everything random.
        say: called with lines for the user.
        watch: called with where the compression is; see `compress`.
    """
    out = Path(out)
    check_folder(out)  # training writes there too
    data = digits(batch_size=32, seed=seed)
    torch.manual_seed(seed)
    graph = capture(zoo.build(NETWORK, num_classes=10), zoo.example_input(NETWORK))
    graph.name = f"{NETWORK} on digits"
    say(f"Training {NETWORK} on 1,437 handwritten digits; then it is compressed to {BUDGET}.")
    with locked(out / INNER, out):
        recover(
            graph,
            data,
            epochs=TRAIN_EPOCHS,
            seed=seed,
            lr=0.05,
            precision="float32",
            channels_last=True,
            checkpoint=out / INNER / "demo-training.checkpoint",
            report=lambda e: say(f"  epoch {e['epoch']}/{TRAIN_EPOCHS}: loss {e['loss']:.4f} ({e['seconds']:.0f} s)"),
        )
    assert data.validation is not None
    say(f"Trained: accuracy {evaluate(graph, data.validation, data.task):.4f} on 360 other digits.")
    result = compress(
        graph, data=data, budget=BUDGET, out=out, epochs=RECOVER_EPOCHS, lr=0.02, seed=seed, say=say, watch=watch
    )
    assert isinstance(result, Result)
    return result
