"""Reports like those of real runs, made in code: a small one, a wide one of many layers, and the awkward ones."""

import hashlib
import random
from typing import Any


def side(metric, median, size, params, macs, memory=None, energy=None) -> dict[str, Any]:
    latency = None if median is None else {"median": median, "p90": round(median * 1.12, 4), "runs": 200}
    return {
        "metric": metric,
        "latency_ms": latency,
        "size_bytes": size,
        "params": params,
        "macs": macs,
        "peak_memory_bytes": memory,
        "energy_mj": energy,
    }


def report(**changes: Any) -> dict[str, Any]:
    """ResNet-20 on digits, the budget met; `changes` replaces top-level keys."""
    base = side(0.9778, 0.842, 1_103_420, 272_474, 40_812_544, 61_341_696, {"value": 12.6, "source": "estimated"})
    small = side(0.9741, 0.366, 139_870, 118_214, 17_730_112, 48_234_496, {"value": 4.1, "source": "estimated"})
    made = {
        "schema": 1,
        "model": "zoo:resnet20",
        "target": {"name": "onnxruntime", "version": "1.24.1", "device": "cpu (x86_64)", "threads": 1, "batch": 1},
        "budget": {"latency": "0.5x", "size": "0.25x", "drop": 0.01},
        "met": True,
        "seed": 0,
        "exclude": ["fc*"],
        "provenance": {
            "command": "penjing compress zoo:resnet20 --data digits --target onnxruntime --threads 1 "
            "--latency 0.5x --size 0.25x --drop 0.01 --exclude 'fc*' --out out/",
            "inputs": {name: hashlib.sha256(name.encode()).hexdigest() for name in ("weights.safetensors", "digits")},
            "versions": {"penjing": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "onnxruntime": "1.24.1"},
            "machine": {"cpu": "AMD EPYC 7R13", "cores": 2, "memory_bytes": 8_201_000_000, "system": "Linux 6.1"},
        },
        "baseline": base,
        "compressed": small,
        "ratios": {"latency": 0.842 / 0.366, "size": 1_103_420 / 139_870, "params": 2.305, "macs": 2.302},
        "parity": {"max_abs_error": 3.1e-5, "top1_agreement": 0.9972, "agreement_with_original": 0.9861},
        "integer_macs": 0.9764,
        "plan": plan(resnet(9, 16)),
        "seconds": {"verify": 9.3, "capture": 1.42, "choose": 41.2, "recover": 74.8, "quantise": 2.1, "lower": 1.6},
        "layers": resnet(9, 16),
        "notes": [],
    }
    return made | changes


def large() -> dict[str, Any]:
    """ResNet-56 with about 110 layers, the budget missed."""
    layers = resnet(27, 16, timed=True)
    made = report(model="file.py:resnet56", layers=layers, plan=plan(layers), met=False)
    made["budget"] = {"latency": "0.25x", "size": "400kB", "drop": 0.015, "memory": None}
    made["baseline"] = side(0.9437, 3.91, 3_451_200, 855_770, 126_554_752, 78_000_000)
    made["compressed"] = side(0.9398, 1.304, 431_020, 402_118, 58_102_336, 61_200_000)
    made["ratios"] = {"latency": 3.91 / 1.304, "size": 8.007, "params": 2.128, "macs": 2.178}
    made["seconds"] = made["seconds"] | {"choose": 412.0, "recover": 2371.0}
    made["notes"] = ["The latency budget could not be met; this is the fastest candidate that keeps the accuracy."]
    return made


def sparse() -> dict[str, Any]:
    """Half of two layers are zeros, and those of one make the file smaller."""
    places = [
        {"place": "conv1", "granularity": "element", "weights": 432, "zeros": 216, "faster": False, "smaller": False},
        {"place": "fc", "granularity": None, "weights": 640, "zeros": 320, "faster": False, "smaller": True},
    ]
    counts = {"zeros": 536, "weights": 272_474, "faster": 0, "smaller": 320}
    sizes = {"baseline": 1_010_000, "compressed": 880_000}
    return report(zeros={**counts, "why": "It stores them all.", "deflated_bytes": sizes, "places": places})


def searched(places: int = 14, plans: int = 6) -> dict[str, Any]:
    """ResNet-20 under half the latency, chosen place by place."""
    noise = random.Random(plans)
    candidates = [_candidate(272_474, 1.0, 0.0), _candidate(272_474, 0.81, 0.0, integer=True)]
    for at in range(plans - 2):
        latency = 0.5 + noise.uniform(-0.08, 0.12)
        candidates.append(_candidate(118_214 + 991 * at, latency, 0.02 / latency**2, taken=at == plans - 3))
    rows = []
    for at in range(places):
        path = f"layer{at % 3 + 1}.{at // 3}"
        if at % 4 == 0:
            rows.append(_place(path, "branch", _priced("prune", 1, 0, 0.0, 0, 0.03), _priced(None, 1, 1, 0.04, 9_344)))
        elif at % 4 == 1:
            gone = _priced(None, None, None, 0.0, 0, 0.04, goes_with=path)
            rows.append(_place(f"{path}.conv1", "group", _priced("prune", 32, 24, 0.031, 20_480, 0.0004), gone))
        elif at % 4 == 2:
            chain = {"method": "tucker2", "ranks": [16, 24]}
            rows.append(
                _place(
                    f"{path}.conv2",
                    "weight",
                    _priced(None, None, None, 0.05, 36_864),
                    _priced("factorize", None, None, 0.03, 9_000, 0.012, setting=chain),
                )
            )
        else:
            rows.append(_place(f"{path}.conv2", "group", _priced(None, 64, 64, 0.06, 73_728), None))
    return report(candidates=candidates, places=rows)


def changed(classes: int = 10, shown: int = 8) -> dict[str, Any]:
    """ResNet-20 on 360 digits, eight answers of which changed."""

    def estimate(value, half) -> dict[str, float]:
        return {"value": value, "low": round(value - half, 4), "high": round(value + half, 4)}

    rows = [
        {"name": str(at), "samples": 36, "before": estimate(0.97, 0.05), "after": estimate(0.97 - 0.03 * (at < 3), 0.06),
         "change": estimate(-0.03 * (at < 3), 0.08), "clear": at == 0}
        for at in range(classes)
    ]  # fmt: skip
    kinds = ["lost", "lost", "lost", "lost", "lost", "gained", "gained", "other"]
    samples = [
        {"index": 31 * at, "kind": kinds[at % 8], "before": "7", "after": "9", "before_confidence": 0.81,
         "after_confidence": 0.67, "label": "7", "file": None, "image": PIXEL, "text": None}
        for at in range(shown)
    ]  # fmt: skip
    bins = [{"samples": 20 + 8 * at, "confidence": 0.35 + 0.1 * at, "accuracy": 0.25 + 0.11 * at} for at in range(7)]
    told = {
        "metric_name": "accuracy", "samples": 360, "before": estimate(0.9778, 0.016), "after": estimate(0.9741, 0.017),
        "change": estimate(-0.0083, 0.0171), "chance": 0.45, "changed": 8, "lost": 5, "gained": 2, "classes": rows,
        "shown": samples, "calibration_before": {"error": 0.021, "bins": bins},
        "calibration_after": {"error": 0.034, "bins": bins}, "missing": [],
        "layers": [{"path": row["name"], "signal_to_noise_db": 31.4} for row in resnet(9, 16)[:4]],
    }  # fmt: skip
    return report(changes=told)


# One black pixel.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def _candidate(params, latency, damage, integer=False, taken=False) -> dict[str, Any]:
    used = {"latency": latency / 0.5, "size": params / 272_474 / 0.9}
    return {
        "params": params, "latency": latency, "latency_ms": 0.8 * latency, "correction": 1.0, "size_bytes": 4 * params,
        "meets": latency <= 0.475, "integer": integer, "techniques": ["prune"] if damage else [], "in_float": [],
        "damage": damage, "used": used, "binds": max(used, key=used.__getitem__), "taken": taken,
    }  # fmt: skip


def _place(path, kind, taken, rival) -> dict[str, Any]:
    return {"place": path, "kind": kind, "taken": taken, "rival": rival}


def _priced(technique, before, after, latency, size, damage=0.0, goes_with="", setting=None) -> dict[str, Any]:
    return {
        "technique": technique, "setting": setting, "before": before, "after": after, "goes_with": goes_with,
        "latency": latency, "size_bytes": size, "damage": damage,
    }  # fmt: skip


def unlabelled() -> dict[str, Any]:
    """Nothing but speed and size was measured, and speed went the wrong way."""
    base = side(None, 1.02, 512_000, 128_000, 3_200_000)
    small = side(None, 1.21, 540_000, 128_000, 3_200_000)
    return report(
        model="custom:net",
        baseline=base,
        compressed=small,
        ratios={"latency": 1.02 / 1.21, "size": 512 / 540, "params": 1.0, "macs": None},
        parity={"max_abs_error": None, "top1_agreement": None, "agreement_with_original": 0.982},
        met=False,
        integer_macs=None,
        plan=[],
        notes=["Float is already the fastest within your budget, so nothing was pruned or quantised."],
        layers=[layer | {"before": layer["before"] | {"latency_ms": None}, "after": None} for layer in resnet(3, 8)],
    )


def bare() -> dict[str, Any]:
    """A report in which every number that may be null is null, and every optional key is missing."""
    nothing = dict.fromkeys(("metric", "latency_ms", "size_bytes", "params", "macs", "peak_memory_bytes", "energy_mj"))
    return {
        "schema": 1,
        "model": "m",
        "target": {"name": "elsewhere", "version": None, "device": None, "threads": None, "batch": None},
        "budget": {},
        "met": False,
        "seed": None,
        "provenance": {},
        "baseline": dict(nothing),
        "compressed": dict(nothing),
        "ratios": dict.fromkeys(("latency", "size", "params", "macs")),
        "parity": {"max_abs_error": None, "top1_agreement": None},
        "integer_macs": None,
        "plan": [],
        "seconds": {"capture": None},
    }


def resnet(blocks: int, width: int, timed: bool = True) -> list[dict[str, Any]]:
    """The layers of a CIFAR ResNet with 3 × `blocks` / 3 residual blocks: two convolutions, two additions each."""
    noise = random.Random(blocks)
    layers = [_conv("conv1", 3, width, width, 32, noise, timed, integer=False)]
    for block in range(blocks):
        stage = 3 * block // blocks
        channels, pixels = width << stage, 32 >> stage
        kept = max(8, round(channels * noise.uniform(0.4, 1) / 8) * 8)
        place = f"layer{stage + 1}.{block - stage * blocks // 3}"
        layers.append(_conv(f"{place}.conv1", channels, channels, kept, pixels, noise, timed))
        layers.append(_conv(f"{place}.conv2", channels, channels, channels, pixels, noise, timed))
        layers.append(_pointwise(f"{place}.add", "add", channels, pixels, noise, timed))
        layers.append(_pointwise(f"{place}.relu", "relu", channels, pixels, noise, timed, gone=True))
    layers.append(_conv("fc", 4 * width, 10, 10, 1, noise, timed))
    return layers


def plan(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was done to the convolutions of `layers`."""
    rows = [
        {"place": layer["name"], "technique": "prune", "setting": {"criterion": "l2", "round_to": 8}}
        | {key: layer[key]["shape"][0] for key in ("before", "after")}
        for layer in layers
        if layer["after"] and layer["after"]["shape"] != layer["before"]["shape"]
    ]
    return [
        *rows,
        {"place": "*", "technique": "quantize", "setting": "int8, per channel", "before": "float32", "after": "int8"},
    ]


def _conv(name, inputs, before, after, pixels, noise, timed, integer=True) -> dict[str, Any]:
    def one(outputs: int, speed: float, whole: bool) -> dict[str, Any]:
        macs = 9 * inputs * outputs * pixels**2
        latency = round(macs / speed * noise.uniform(0.8, 1.3), 5) if timed else None
        shape = [outputs, pixels, pixels]
        return {"latency_ms": latency, "params": 9 * inputs * outputs, "macs": macs, "shape": shape, "integer": whole}

    return {"name": name, "op": "conv2d", "before": one(before, 5e7, False), "after": one(after, 9e7, integer)}


def _pointwise(name, op, channels, pixels, noise, timed, gone=False) -> dict[str, Any]:
    def one(whole: bool) -> dict[str, Any]:
        latency = round(channels * pixels**2 / 4e6 * noise.uniform(0.8, 1.3), 5) if timed else None
        return {"latency_ms": latency, "params": 0, "macs": 0, "shape": [channels, pixels, pixels], "integer": whole}

    return {"name": name, "op": op, "before": one(False), "after": None if gone else one(True)}
