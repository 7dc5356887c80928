"""Writes a step of the plan as a sentence for people. The plan holds data; sentences are made only here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penjing.report import _format

REASONS = {
    "slower": "measured faster in floating point",
    "asked": "stays in floating point as asked",
    "metric": "back in floating point, since the metric fell too far",
    "unknown": "nothing is known of {op}, which reads parameters",
    "range": "no range is found at run time for {op}",
    "dtype": "its weight is in {dtype}; only float32 is rounded",
    "computed": "its weight is computed while it runs, so it can't be stored in integers",
    "input": "its input isn't float32",
    "operands": "{target} runs {op} in floating point with operands such as these",
    "readers": "the ops that read the output of {op} compute in floating point",
    "inside": "multiplied in floating point, since its activations are inside of the op",
    "table": "{target} holds no such table in few bits, or another layer reads it in floating point",
    "kernel": "{target} has no integer kernel for {op}",
}
"""Why a place computes in floating point, by the code in the plan."""

LEFT_ALONE = {
    "kind": "left alone: only linear layers and convolutions are factorised",
    "grouped": "left alone: its channels are in groups",
    "geometries": "left alone: convolutions of unlike strides or paddings share its weight",
    "dtype": "left alone: its weight isn't in floating point",
    "rank one": "left alone: it has no lower rank",
    "no window": "left alone: it has no kernel that could be decomposed so",
    "no gain": "left alone: at the ranks that were found it would cost as much as before",
    "slower chain": "left alone: it was measured faster than the chain in its place",
}
"""Why a layer isn't factorised, by the code in the plan."""

# Settings that are the same at all places: they say how the plan came about, and a reader of a step doesn't look for them.
_UNSAID = frozenset({
    "batches", "seed", "units", "include", "exclude", "in_float", "target", "placement", "simulate", "keep",
})  # fmt: skip


def words(step: Mapping[str, Any]) -> str:
    """Says in a clause what a step of a plan did.

    Args:
        step: the step as `report.json` or `plan.json` holds it; if it has another form, its values are listed as they are.
    """
    setting, found = step.get("setting"), step.get("found")
    if not isinstance(setting, Mapping):
        return setting if isinstance(setting, str) else _format.anything(setting)
    found = found if isinstance(found, Mapping) else {}
    technique = step.get("technique")
    say = _SAY.get(technique, _anything) if isinstance(technique, str) else _anything
    return say(setting, found)


def option_words(option: Mapping[str, Any], kind: str) -> str:
    """Says what an option does at a place, without why.

    Args:
        option: one of the two options of a place, as `report.json` holds them.
        kind: the place's kind.
    """
    before, after, setting = option["before"], option["after"], option["setting"]
    if option["goes_with"]:
        return f"goes with {option['goes_with']}"
    if option["technique"] is None:
        return "as it was"
    if kind == "branch":
        return "goes"
    if kind == "group":
        return f"{_format.anything(after)} of {_format.anything(before)} channels"
    if option["technique"] == "factorize" and isinstance(setting, Mapping):
        ranks = setting.get("ranks")
        named = f", rank {_format.anything(ranks)}" if isinstance(ranks, list | tuple) else ""
        return f"{_format.anything(setting.get('method'))}{named}"
    if option["technique"] == "merge" and isinstance(setting, Mapping):
        return _one_convolution(setting)
    return f"{option['technique']}: {_format.anything(before)} to {_format.anything(after)}"


def row(step: Mapping[str, Any]) -> dict[str, Any]:
    """Turns a step of `plan.json` into a row of `report.json`, where two texts stand for its place: path and kind."""
    return {**step, "place": step["place"]["path"], "kind": step["place"]["kind"]}


def reason(step: Mapping[str, Any]) -> str:
    """Says why a step left its place in floating point; "" where it didn't."""
    found = step.get("found")
    found = found if isinstance(found, Mapping) else {}
    code = found.get("reason")
    if code is None:
        return ""
    facts = {name: str(found.get(name, "")) for name in ("op", "target", "dtype")}
    return REASONS[code].format(**facts) if isinstance(code, str) and code in REASONS else str(code)


def _pruned(setting: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    choices = [setting.get(name) for name in ("granularity", "criterion", "allocation", "schedule")]
    notes = []
    if (least := found.get("least")) is not None:
        notes.append(f"at least {least} stay{'s' if least == 1 else ''}")
    if isinstance(shape := found.get("skipped"), Sequence) and not isinstance(shape, str):
        notes.append(f"skipped: does not fit {'×'.join(map(str, shape))}")
    if (became := found.get("became")) is not None:
        notes.append(str(became))
    if (returned := found.get("returned")) is not None:
        notes.append(f"{returned} came back")
    if found.get("dense_again"):
        notes.append("dense again")
    notes += _expected(found)
    return "; ".join([", ".join(str(choice) for choice in choices if choice), *notes])


def _quantized(setting: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    why = reason({"found": found})
    if setting.get("weights") == "float32":
        return "; ".join(filter(None, [why, *_steps_back(found)]))
    grain = str(setting.get("grain", "")).replace("group:", "group of ")
    parts = [f"{setting.get('weights')} weights per {grain}"]
    if (rounding := setting.get("rounding")) != "nearest":
        parts.append(f"{rounding} rounding")
    looked_up = bool(found.get("looked_up"))
    activations = None if why or looked_up else setting.get("activations")
    if activations == "dynamic":
        parts.append("activations with a range found at run time")
    elif activations is not None:
        parts.append(f"{activations} activations ({setting.get('observer')})")
    corrections = setting.get("corrections")
    parts += map(str, corrections) if isinstance(corrections, list) else []
    parts += ["inputs equalised"] if found.get("inputs_equalised") else []
    if isinstance(level := found.get("signal_to_noise_db"), int | float):
        parts.append(f"signal {abs(level):.1f} dB {'below' if level < 0 else 'above'} the noise")
    parts += [f"{found['corrected']} corrected"] if found.get("corrected") else []
    parts += [f"trained ({found['trained']})"] if found.get("trained") else []
    parts += ["its rows become real numbers when they are looked up"] if looked_up else []
    parts += [why] if why else []
    return "; ".join([", ".join(parts), *_steps_back(found)])


def _factorized(setting: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if (code := found.get("reason")) is not None:
        return LEFT_ALONE.get(code, f"left alone: {code}") if isinstance(code, str) else _format.anything(code)
    ranks = setting.get("ranks")
    parts = [str(setting.get("method"))]
    parts += [f"rank {'×'.join(map(str, ranks))}"] if isinstance(ranks, list | tuple) else []
    parts += ["inputs unfolded"] if setting.get("form") == "unfold" else []
    if isinstance(error := found.get("error"), int | float):
        of = "weights" if setting.get("metric") == "weights" else "outputs"
        parts.append(f"{error:.2%} of the {of}' energy lost")
    return "; ".join([", ".join(parts), *_expected(found)])


def _merged(setting: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    parts = [_one_convolution(setting)]
    if isinstance(error := found.get("error"), int | float):
        parts.append(f"{error:.0%} of the outputs' variance missed")
    return "; ".join([", ".join(parts), *_expected(found)])


def _one_convolution(setting: Mapping[str, Any]) -> str:
    kernel, layers = setting.get("kernel"), setting.get("layers")
    size = "×".join(map(_format.anything, kernel)) if isinstance(kernel, list | tuple) else _format.anything(kernel)
    count = len(layers) + 1 if isinstance(layers, list | tuple) else "several"
    return f"one {size} convolution for {count}"


def _expected(found: Mapping[str, Any]) -> list[str]:
    damage, step = found.get("damage"), found.get("step")
    if not isinstance(damage, int | float):
        return []
    how = "alone" if step is None else f"as step {_format.anything(step)}, on top of those before"
    return [f"{how}, before training, it adds {damage:.2g} to the loss"]


def _steps_back(found: Mapping[str, Any]) -> list[str]:
    steps = found.get("steps_back")
    return [_step_back(step) for step in steps if isinstance(step, Mapping)] if isinstance(steps, list) else []


def _step_back(step: Mapping[str, Any]) -> str:
    noise, cost, latency = (step.get(name) for name in ("noise", "bytes", "ms"))
    parts = [f"{noise:.1e} less noise at the outputs"] if isinstance(noise, int | float) else []
    parts += [f"{latency:+.4f} ms"] if isinstance(latency, int | float) else []
    parts += [f"{cost:+,.0f} bytes"] if isinstance(cost, int | float) else []
    return f"back from {step.get('before')}: {', '.join(parts)}"


def _anything(setting: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Lists the values by name, for a technique that has no sentence of its own here."""
    told = {name: value for name, value in {**setting, **found}.items() if name not in _UNSAID}
    return _format.anything(told)


_SAY: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]] = {
    "prune": _pruned, "quantize": _quantized, "factorize": _factorized, "merge": _merged,
}  # fmt: skip
