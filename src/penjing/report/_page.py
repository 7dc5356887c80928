"""What report.html shows: turns a checked report into rows of text and bar lengths, and fills the template with them.

The charts are plain HTML bars, not a plotting library's: they follow the page's width and its light or dark theme by
themselves, can be searched and copied, and keep the file at some tens of kilobytes where plotly.js alone is 4.5 MB.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from penjing.report import _budget, _format
from penjing.report._changes import changes, interval, is_chance, layer_noise
from penjing.report._headline import change, compared, is_share, metric_title, shown_metric, sure, title, where
from penjing.report._layers import Layers, layers
from penjing.report._robustness import robustness
from penjing.report._search import search
from penjing.report._training import curves
from penjing.report._use import use
from penjing.report._words import words
from penjing.report._zeros import zeros

# report.json keeps its keys sorted; people read stages in the order in which they run.
_FLOW = (
    "train",
    "capture",
    "profile",
    "plan",
    "choose",
    "prune",
    "factorize",
    "merge",
    "recover",
    "quantize",
    "lower",
    "verify",
)


# What the report calls the inputs whose hashes it holds.
_HASHED = {
    "weights_file": "weights file",
    "model_file": "model file",
    "model_source_file": "file with the model's factory",
    "captured_model": "captured model: its ops and a digest of its tensors",
    "data_identity": "data: the text that tells it apart (in settings)",
}


WHISKERS = 1.5  # of the longer bar's length, at most, is drawn of its whisker


@dataclass(frozen=True)
class Bar:
    """A bar's length and its whisker's end in percent of the track (None: not drawn), and the text beside the bar.

    A whisker is cut where its end lies beyond the track.
    """

    text: str
    length: float | None = None
    whisker: float | None = None
    cut: bool = False


@dataclass(frozen=True)
class Quantity:
    """One number before and after."""

    name: str
    before: Bar
    after: Bar
    change: str
    better: bool | None


def render(report: Mapping[str, Any]) -> bytes:
    """Returns report.html for a report that `_schema.check` has passed."""
    environment = Environment(
        loader=PackageLoader("penjing", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        sentence=_split(report["headline"]),
        where=where(report["target"]),
        budget=_budget.items(report),
        quantities=quantities(report),
        changes=changes(report),
        robustness=robustness(report),
        layers=_drawable(layers(report["layers"], layer_noise(report))),
        plan=steps(report["plan"]),
        zeros=zeros(report),
        search=search(report),
        use=use(report),
        curves=curves(report),
        stages=stages(report["seconds"]),
        total=_total(report["seconds"]),
        parity=parity(report),
        environment=surroundings(report),
        command=report["provenance"].get("command"),
    )
    return page.encode("utf-8", "replace")


def quantities(report: Mapping[str, Any]) -> list[Quantity]:
    """Returns the numbers that the before/after chart shows, in reading order."""
    before, after = report["baseline"], report["compressed"]
    ratios = report["ratios"]
    energy = [side["energy_mj"] or {} for side in (before, after)]
    return [
        _latency(before["latency_ms"] or {}, after["latency_ms"] or {}, ratios),
        _plain("Size", before["size_bytes"], after["size_bytes"], _format.size, "smaller", "bigger", ratios["size"]),
        _metric(report),
        _plain("Parameters", before["params"], after["params"], _format.count, "fewer", "more", ratios["params"]),
        _plain("MACs", before["macs"], after["macs"], _format.count, "fewer", "more", ratios["macs"]),
        _memory(before, after),
        _energy(*energy),
    ]


def _memory(before: Mapping[str, Any], after: Mapping[str, Any]) -> Quantity:
    """Returns the memory that the model takes; that of the whole process, runtime included, in reports that tell no more."""
    own = [side.get("model_memory_bytes") for side in (before, after)]
    whole = [side["peak_memory_bytes"] for side in (before, after)]
    name, values = ("Memory of the model", own) if None not in own else ("Memory of the process", whole)
    return _plain(name, values[0], values[1], _format.size, "less", "more", _ratio(*values))


def summary(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Returns the numbers before and after as text: rows of (name, original, compressed, change)."""
    return [(one.name, one.before.text, one.after.text, one.change) for one in quantities(report)]


def steps(plan: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of the plan's table; places at which the same was done share a row, where the first of them stands."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for step in plan:
        said = (*(_cell(step[key]) for key in ("technique", "before", "after")), words(step))
        rows.setdefault(said, []).append(_cell(step["place"]))
    names = ("technique", "before", "after", "setting")
    return [{"places": places, **dict(zip(names, said, strict=True))} for said, places in rows.items()]


def stages(seconds: Mapping[str, float | None]) -> list[tuple[str, Bar]]:
    """Returns how long each stage took, in the order in which they ran."""
    longest = max((value or 0 for value in seconds.values()), default=0)
    order = {name: index for index, name in enumerate(_FLOW)}
    names = sorted(seconds, key=lambda name: (order.get(name.replace("quantise", "quantize"), len(order)), name))
    return [(name, Bar(_format.duration(seconds[name]), _length(seconds[name], longest))) for name in names]


def parity(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns (name, value, explanation) of each check of the lowered file."""
    found = report["parity"]
    rows = [
        (
            "Largest error",
            _format.plain(found["max_abs_error"]),
            "of an output, lowered file against its PyTorch graph",
        ),
        ("Same answers", _format.percent(found["top1_agreement"]), "lowered file against its PyTorch graph"),
    ]
    if "agreement_with_original" in found:
        agreement = found["agreement_with_original"]
        told = "" if found.get("agreement_measure") is None else f" ({found['agreement_measure']})"
        what = f"compressed file against the original model{told}"
        named = "Unchanged answers" if found.get("agreement_measure") in (None, "top-1") else "Agreement"
        rows.append((named, _format.percent(agreement), what))
    rows.append(("Integer MACs", _format.percent(report["integer_macs"]), "of the work runs in integer kernels"))
    if report.get("uncounted"):
        ops = ", ".join(dict.fromkeys(f"{left['op']} in {left['module']}" for left in report["uncounted"]))
        rows.append(("Not among the MACs", ops, "how often these ops multiply isn't known"))
    return rows


# What patterns of module paths in a run's settings mean.
_PATTERNS = {
    "include": "Changed alone", "exclude": "Left alone", "keep_channels": "Not pruned", "keep_float": "Not quantised",
}  # fmt: skip


def surroundings(report: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns titled lists of (name, value): the settings of the run, the machine, the versions and the inputs."""
    target, provenance = report["target"], report["provenance"]
    run = [
        ("Runtime", f"{title(target)} {target['version'] or ''}".strip()),
        ("Device", _format.anything(target["device"])),
        ("Threads", _format.anything(target["threads"])),
        ("Batch", _format.anything(target["batch"])),
        ("Seed", _format.anything(report["seed"])),
    ]
    runs = [(side["latency_ms"] or {}).get("runs") for side in (report["baseline"], report["compressed"])]
    if any(runs):
        run.append(("Timed runs", " and ".join(_format.anything(number) for number in dict.fromkeys(runs))))
    if variant := provenance.get("training"):
        layout = "channels last" if variant.get("channels_last") else "contiguous"
        threads = variant.get("threads")
        told = "" if threads is None else f", {threads} thread{'' if threads == 1 else 's'}"
        run.append(("Trained in", f"{variant.get('precision')}, {layout}{told}"))
    settings = report.get("settings") or {}
    run += [(said, _format.anything(settings[name])) for name, said in _PATTERNS.items() if settings.get(name)]
    groups = [("Run", run)]
    for name, key in (("Machine", "machine"), ("Versions", "versions"), ("Inputs (SHA-256)", "inputs")):
        facts = provenance.get(key)
        if facts:
            groups.append((name, [_fact(_HASHED.get(fact, fact), value) for fact, value in facts.items()]))
    return groups


def _drawable(found: Layers) -> Layers | None:
    return found if found.rows else None


def _split(sentence: str) -> tuple[str, str]:
    """Splits a headline before "on ONNX Runtime, …", which the page shows in a quieter tone on a line of its own."""
    # A number and its unit stay on one line.
    head, comma, tail = sentence.replace(" %", "\u00a0%").replace("× ", "×\u00a0").partition(", on ")
    return (f"{head},", f"on {tail}") if comma else (head, "")


def _total(seconds: Mapping[str, float | None]) -> str:
    measured = [value for value in seconds.values() if value is not None]
    return _format.duration(sum(measured)) if measured else ""


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else _format.anything(value)


def _fact(name: str, value: Any) -> tuple[str, str]:
    if name.endswith("_bytes") and isinstance(value, int | float):
        return name.removesuffix("_bytes"), _format.size(value)
    return name, _format.anything(value)


def _ratio(before: float | None, after: float | None) -> float | None:
    return before / after if before is not None and after else None


def _length(value: float | None, longest: float) -> float | None:
    return None if value is None or longest <= 0 or value < 0 else round(100 * min(value / longest, 1), 2)


def _plain(
    name: str,
    before: float | None,
    after: float | None,
    show: Callable[[float | None], str],
    better: str,
    worse: str,
    ratio: float | None,
) -> Quantity:
    longest = max(before or 0, after or 0)
    return Quantity(
        name,
        Bar(show(before), _length(before, longest)),
        Bar(show(after), _length(after, longest)),
        compared(ratio, better, worse, "same") or "",
        _better(ratio),
    )


def _latency(before: Mapping[str, Any], after: Mapping[str, Any], ratios: Mapping[str, Any]) -> Quantity:
    medians, ends = ([side.get(key) or 0 for side in (before, after)] for key in ("median", "p90"))
    longest = min(max(*medians, *ends), WHISKERS * max(medians))  # slow calls must not make slivers of the bars

    def bar(side: Mapping[str, Any]) -> Bar:
        median, p90 = side.get("median"), side.get("p90")
        text = _format.milliseconds(median)
        if median is not None and p90 is not None:
            text += f" (p90 {_format.milliseconds(p90)})"
        length = _length(median, longest)
        return Bar(text, length, None if length is None else _length(p90, longest), (p90 or 0) > longest)

    ratio = sure(ratios)
    words = compared(ratio, "faster", "slower", "same") or ""
    interval = ratios.get("latency_interval")
    if ratio and interval and None not in interval:
        low, high = interval if ratio >= 1 else sorted(1 / end for end in interval)
        words += f" ({_format.digits(low)}–\u2060{_format.digits(high)}×)"  # the word joiner keeps both ends on a line
    return Quantity("Latency (median)", bar(before), bar(after), words, _better(ratio))


def _energy(before: Mapping[str, Any], after: Mapping[str, Any]) -> Quantity:
    """Compares the energy of both sides; a measured number isn't compared with an estimate."""
    alike = before.get("source") == after.get("source")
    ratio = _ratio(before.get("value"), after.get("value")) if alike else None
    drawn = _plain("Energy", before.get("value"), after.get("value"), _format.millijoules, "less", "more", ratio)

    def said(bar: Bar, side: Mapping[str, Any]) -> Bar:
        estimated = side.get("value") is not None and side.get("source") != "measured"
        return Bar(f"{bar.text} (estimated)", bar.length) if estimated else bar

    return Quantity(drawn.name, said(drawn.before, before), said(drawn.after, after), drawn.change, drawn.better)


def _metric(report: Mapping[str, Any]) -> Quantity:
    before, after = (shown_metric(report, report[side]["metric"]) for side in ("baseline", "compressed"))
    share = is_share(before, after) and not report.get("lower_is_better")
    longest = 1 if share else max(before or 0, after or 0)
    show = _format.percent if share else _format.plain
    measured = before is not None and after is not None
    agreement = report["parity"].get("agreement_with_original")
    # A fall that the budget allows is the price that was agreed on, and isn't marked as bad.
    paid = any(item.met for item in _budget.items(report) if item.key == "drop")
    samples = report.get("metric_samples")
    return Quantity(
        f"{metric_title(report)} ({samples:,} sample{'' if samples == 1 else 's'})"
        if samples
        else metric_title(report),
        Bar(show(before), _length(before, longest)),
        Bar(show(after), _length(after, longest)),
        change(report) + interval(report) if measured or agreement is not None else "",
        None if before is None or after is None or before == after else _improved(report, before, after, paid),
    )


def _improved(report: Mapping[str, Any], before: float, after: float, paid: bool) -> bool | None:
    """Tells whether a metric is better than before; None where chance may have made it so, or the budget allows the loss."""
    better = after < before if report.get("lower_is_better") else after > before
    return None if is_chance(report) or (paid and not better) else better


def _better(ratio: float | None) -> bool | None:
    return None if ratio is None or abs(ratio - 1) < 0.01 else ratio > 1
