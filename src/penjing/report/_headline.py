"""The one sentence that says what a run achieved, and the words for each of its numbers."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from penjing.report._format import percent, signed

# How the makers of the runtimes write their names; any other target is called by the name that users type.
_TITLES = {
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-web": "ONNX Runtime Web",
    "onnxruntime-web:chromium": "ONNX Runtime Web (Chromium)",
    "onnxruntime-web:webgpu": "ONNX Runtime Web (WebGPU)",
    "onnxruntime:cpu": "ONNX Runtime",
    "onnxruntime:cuda": "ONNX Runtime (CUDA)",
    "onnxruntime:tensorrt": "ONNX Runtime (TensorRT)",
    "onnxruntime:coreml": "ONNX Runtime (Core ML)",
    "onnxruntime:qnn": "ONNX Runtime (QNN)",
    "openvino": "OpenVINO",
    "litert": "LiteRT",
    "tflite": "LiteRT",
    "executorch": "ExecuTorch",
    "tensorrt": "TensorRT",
    "coreml": "Core ML",
    "ncnn": "ncnn",
    "torch": "PyTorch",
    "pytorch": "PyTorch",
}


def headline(report: Mapping[str, Any]) -> str:
    """Says the result in one sentence.

    Reads `ratios`, the two `metric` values (or, for unlabelled data, `parity.agreement_with_original`) and `target`.

    Example:
        >>> headline({
        ...     "ratios": {"latency": 2.31, "size": 7.88},
        ...     "baseline": {"metric": 0.934}, "compressed": {"metric": 0.930},
        ...     "target": {"name": "onnxruntime", "threads": 1, "batch": 1},
        ... })
        '2.3× faster, 7.9× smaller, −0.4 points, on ONNX Runtime, 1 thread, batch 1.'
    """
    ratios = report["ratios"]
    parts = [
        compared(sure(ratios), "faster", "slower", "same speed") or "speed not measured",
        compared(ratios["size"], "smaller", "bigger", "same size") or "size not measured",
        change(report),
        f"on {where(report['target'])}",
    ]
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def sure(ratios: Mapping[str, Any]) -> float | None:
    """Returns how many times faster the result is; 1 where the interval of the measurement holds 1, so that nobody can tell."""
    low, high = ratios.get("latency_interval") or (None, None)
    return 1.0 if low is not None and high is not None and low <= 1 <= high else ratios["latency"]


def compared(ratio: float | None, better: str, worse: str, same: str) -> str | None:
    """Says a ratio of baseline to compressed, "2.3× faster"; None where it was not measured."""
    if ratio is None or ratio <= 0:
        return None
    times, word = (ratio, better) if ratio >= 1 else (1 / ratio, worse)
    # Two measurements of the same thing may differ by one percent.
    return same if times < 1.01 else f"{times_(times)} {word}"


def times_(ratio: float) -> str:
    """Returns "1.04×", "2.3×" or "23×"."""
    places = 2 if ratio < 1.095 else 1 if ratio < 9.95 else 0
    return f"{ratio:.{places}f}×"


def change(report: Mapping[str, Any]) -> str:
    """Says how the metric changed, or, without labels, which share of the answers stayed the same."""
    before, after = report["baseline"]["metric"], report["compressed"]["metric"]
    name = report.get("metric_name") or "accuracy"
    if report.get("learned") is False:
        return "with nothing to lose"
    if before is None:
        agreement = (report.get("parity") or {}).get("agreement_with_original")
        what, kept, _ = alike(report)
        return "accuracy not measured" if agreement is None else f"{percent(agreement)} of {what} {kept}"
    if after is None:
        return f"{name} not measured"
    if before == after:
        return f"same {name}"
    if report.get("lower_is_better"):
        return f"{_rise(-before, -after)} {name}"
    if is_share(before, after):
        points = (after - before) * 100
        of = "" if name == "accuracy" else f" of {name}"
        return f"{signed(points, 1 if abs(points) >= 0.05 else 2)} points{of}"
    difference = after - before
    return f"{signed(difference, 2 if abs(difference) >= 0.005 else 4)} {name}"


def _rise(before: float, after: float) -> str:
    """Says by how much an error rose or fell, in percent of what it was."""
    if before <= 0:
        return signed(after - before, 4)
    share = 100 * (after / before - 1)
    return (
        "same"
        if abs(share) < 0.05
        else f"{abs(share):.{1 if abs(share) < 9.95 else 0}f} % {'more' if share > 0 else 'less'}"
    )


def shown_metric(report: Mapping[str, Any], value: float | None) -> float | None:
    """Returns a metric's value as people are shown it: an error without the sign by which higher is better."""
    return -value if value is not None and report.get("lower_is_better") else value


# For each measure of agreement with the original: the quantity of which it is a share, and words for the kept and lost shares.
_ALIKE = {
    "top-1": ("answers", "unchanged", "changed"),
    "decisions at 0.5": ("decisions (at 0.5)", "unchanged", "changed"),
    "R²": ("the outputs' variance (R²)", "kept", "lost"),
    "equal values": ("values", "unchanged", "changed"),
}


def alike(report: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns the words for the agreement that takes the metric's place without labels: (the quantity, kept, lost)."""
    return _ALIKE.get((report.get("parity") or {}).get("agreement_measure") or "", _ALIKE["top-1"])


def metric_title(report: Mapping[str, Any]) -> str:
    """Returns the metric's name as a heading: "Accuracy", but "mIoU" as it is."""
    name = str(report.get("metric_name") or "accuracy")
    return name.capitalize() if name.islower() else name


def is_share(*values: float | None) -> bool:
    """Tells whether metric values are shares of one, which are read in percent and points."""
    return all(value is None or 0 <= value <= 1 for value in values)


def title(target: Mapping[str, Any]) -> str:
    """Returns the runtime's name as its makers write it, and the device where that is another one."""
    name = str(target["name"])
    if "://" not in name:
        return str(target.get("title") or _TITLES.get(name, name))
    parts = urlsplit(name)
    runtime = parts.path.strip("/")
    return f"{_TITLES.get(runtime, runtime)} on {parts.netloc or 'a device'}"


def where(target: Mapping[str, Any]) -> str:
    """Says where a model was measured: "ONNX Runtime, 1 thread, batch 1"."""
    parts = [title(target)]
    if target.get("threads") is not None:
        parts.append(f"{target['threads']} thread{'' if target['threads'] == 1 else 's'}")
    if target.get("batch") is not None:
        parts.append(f"batch {target['batch']}")
    return ", ".join(parts)
