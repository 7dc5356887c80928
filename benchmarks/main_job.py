"""The main job, run as a user runs it: the command line, then what its report says.

    python benchmarks/main_job.py demo
    python benchmarks/main_job.py cifar10 WEIGHTS.safetensors CIFAR10.zip
    python benchmarks/main_job.py cifar10-tight WEIGHTS.safetensors CIFAR10.zip

A run that was killed goes on where it stopped when it is started again.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _tables import publish

OUT = Path(__file__).parent / "out"


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """Runs one command of Penjing and returns its report, with the seconds that the command took."""
    out = OUT / name
    start = time.monotonic()
    finished = subprocess.run([sys.executable, "-m", "penjing", *arguments, "--out", str(out)], check=False)
    if finished.returncode not in (0, 3):
        raise SystemExit(f"the run failed with exit code {finished.returncode}")
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return {**report, "wall": time.monotonic() - start}


def rows(report: dict[str, Any]) -> list[list[Any]]:
    """Lays a report out as before, after and ratio."""
    before, after, ratios = report["baseline"], report["compressed"], report["ratios"]
    budget = report["budget"]
    return [
        [
            f"latency, {report['target']['threads']} thread, batch {report['target']['batch']}",
            f"{before['latency_ms']['median']:.3f} ms",
            f"{after['latency_ms']['median']:.3f} ms",
            f"{ratios['latency']:.2f}× faster",
            budget.get("latency", ""),
        ],
        [
            "size",
            f"{before['size_bytes']:,} B",
            f"{after['size_bytes']:,} B",
            f"{ratios['size']:.2f}× smaller",
            budget.get("size", ""),
        ],
        [
            "accuracy",
            f"{before['metric']:.2%}",
            f"{after['metric']:.2%}",
            f"{100 * (after['metric'] - before['metric']):+.2f} points",
            budget.get("drop", ""),
        ],
        ["parameters", f"{before['params']:,}", f"{after['params']:,}", f"{ratios['params']:.2f}× fewer", ""],
        ["MACs", f"{before['macs']:,}", f"{after['macs']:,}", f"{ratios['macs']:.2f}× fewer", ""],
        ["share of MACs in integers", "0", f"{report['integer_macs']:.3f}", "", ""],
        ["budget met, seconds of the command", "", "yes" if report["met"] else "no", f"{report['wall']:.0f} s", ""],
    ]


def main(which: str, *paths: str) -> None:
    """Runs one of the jobs and publishes its table."""
    if which == "demo":
        report = run("demo", ["demo"])
    else:
        limits = {"cifar10": "0.5x", "cifar10-tight": "0.33x"}
        weights, data = paths
        report = run(
            which,
            ["compress", "zoo:resnet56", "--weights", weights, "--data", f"cifar10:{data}", "--target", "onnxruntime",
             "--threads", "1", "--latency", limits[which], "--drop", "0.015", "--epochs", "3"],
        )  # fmt: skip
    seconds = {stage: round(value) for stage, value in report["seconds"].items()}
    publish(
        f"main_job_{which.replace('-', '_')}",
        ["", "original", "compressed", "", "budget"],
        rows(report),
        {"headline": report["headline"], "seconds": seconds},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
