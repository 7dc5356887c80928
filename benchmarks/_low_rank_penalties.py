"""What training towards low rank brings before a cut: the same epochs with and without a penalty, and then the same ranks."""

from pathlib import Path
from typing import Any

import penjing as pj
from _pruning import Rows, judge, network
from _tables import publish

PENALTIES = ("", "nuclear_norm", "subspace:0.5")
RULE = "speedup:2"
SHAPING, TUNING = 2, 1  # epochs before the cut, with the penalty, and behind it
TRAINING: dict[str, Any] = {"precision": "bfloat16", "channels_last": True, "progress": False, "seed": 0}


def measure(weights: Path, cifar10: Path, rows: Rows) -> None:
    """Shapes, cuts and tunes ResNet-20 for each penalty, and judges it on all test images."""
    data = pj.data.cifar10(cifar10, seed=0)
    for penalty in PENALTIES:
        rows.once([penalty], lambda penalty=penalty: one(weights, data, penalty))


def one(weights: Path, data: pj.Data, penalty: str) -> dict[str, Any]:
    """Returns the accuracy before the cut, behind it, and tuned."""
    base = network("resnet20", weights)
    shaped = pj.recover(
        network("resnet20", weights), data, teacher=base, epochs=SHAPING, penalty=penalty or None, **TRAINING
    )
    found = {"original": judge(base, data), "shaped": judge(shaped, data)}
    small = pj.factorize(shaped, ranks=RULE, metric="weights", round_to=1, exclude=["conv1", "linear"])
    found["cut"] = judge(small, data)
    pj.recover(small, data, teacher=base, epochs=TUNING, **TRAINING)
    return {**found, "tuned": judge(small, data), "macs": small.cost().macs / base.cost().macs}


def table(rows: Rows) -> None:
    """Publishes what is finished."""
    out = []
    for penalty in PENALTIES:
        if rows.has([penalty]):
            found = rows.get([penalty])
            stages = [f"{found[stage]['accuracy']:.2%}" for stage in ("original", "shaped", "cut", "tuned")]
            out.append([penalty or "none", *stages, f"{found['macs']:.0%}"])
    if out:
        columns = [
            "penalty", "the original", f"after {SHAPING} epochs with it", "factorised", f"after {TUNING} more", "MACs left",
        ]  # fmt: skip
        publish("low_rank_penalties", columns, out)
