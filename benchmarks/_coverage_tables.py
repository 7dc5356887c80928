"""What the coverage benchmark found, as a summary on the terminal and as tables in the docs."""

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

Record = dict[str, Any]
Records = dict[tuple[str, str], Record]

# Every column that a network must pass, as it is called in the records and in the table.
COLUMNS = {
    "captured": "captured",
    "labelled": "labelled",
    "explained": "pins explained",
    "pruned": "pruned",
    "runs at batch 2": "batch 2",
    "runs at batch 3": "batch 3",
    "runs in ONNX Runtime": "ONNX",
    "reloads": "reloads",
    "trains": "trains",
}
RUNS = ("pruned", "runs at batch 2", "runs at batch 3")
FEW, MANY = 0.35, 0.5
LARGE = 50  # MB of weights


def passes(record: Record | None, columns: Iterable[str]) -> bool:
    """Whether every one of the columns was reached and went well."""
    return record is not None and not set(columns) - {
        column for column, found in record["columns"].items() if found is True
    }


def removal(record: Record) -> float | None:
    """Seconds of choosing and removing units, without the labelling that `prune` does as well."""
    seconds = record.get("seconds", {})
    return max(0.0, seconds["pruned"] - seconds["labelled"]) if "pruned" in seconds else None


def memory(record: Record, export: Record | None) -> float | None:
    """What Penjing held at most until the network was pruned, above `torch.export`'s peak, in sizes of the weights."""
    ours = record.get("peak_mb", {}).get("pruned")
    theirs = (export or {}).get("peak_mb", {}).get("exported")
    return None if ours is None or theirs is None else max(0.0, ours - theirs) / record["weights_mb"]


def why(record: Record) -> dict[str, str]:
    """The columns that failed with the first line of why."""
    return {column: text for column, text in record["columns"].items() if text is not True}


def summarize(records: Records, names: list[str], publish: bool) -> None:
    """Prints what was found; with `publish` the tables are written into docs/results.md as well."""
    ours = {name: records[name, "penjing"] for name in names if (name, "penjing") in records}
    theirs = {name: records[name, "torch-pruning"] for name in names if (name, "torch-pruning") in records}
    exports = {name: records[name, "export"] for name in names if (name, "export") in records}
    facts = _facts(names, ours, theirs, exports)
    for fact, value in facts:
        print(f"{fact}: {value}")
    print()
    for name, record in ours.items():
        for column, text in why(record).items():
            print(f"{name}: {column}: {text}")
    if publish:
        _publish(facts, names, ours, theirs, exports)


def _share(count: int, of: int) -> str:
    return f"{count} of {of} ({count / of:.0%})" if of else "none"


def _facts(
    names: list[str], ours: dict[str, Record], theirs: dict[str, Record], exports: dict[str, Record]
) -> list[tuple[str, str]]:
    whole = {name: record for name, record in ours.items() if not record.get("quick")}
    left = {name: record["left"] for name, record in ours.items() if "left" in record}
    # Below, what both processes hold besides weights (code that export loads as it goes) is more than the weights.
    large = {name: record for name, record in ours.items() if record.get("weights_mb", 0) >= LARGE}
    facts = [
        ("networks in the list", str(len(names))),
        (
            "Penjing: every column passed",
            _share(sum(passes(r, COLUMNS) and not why(r) for r in whole.values()), len(whole)),
        ),
    ]
    facts += [
        (f"Penjing: {title}", _share(sum(passes(r, (key,)) for r in rows.values()), len(rows)))
        for key, title in COLUMNS.items()
        for rows in [whole if key == "runs in ONNX Runtime" else ours]
    ]
    if left:
        facts += [
            ("Penjing: median share of parameters left", f"{median(left.values()):.3f}"),
            (f"Penjing: left at most {FEW}", _share(sum(value <= FEW for value in left.values()), len(ours))),
            (f"Penjing: left above {MANY}", ", ".join(f"{n} {v:.2f}" for n, v in left.items() if v > MANY) or "none"),
        ]
    for title, found in (
        ("seconds of labelling and grouping", {n: r["seconds"].get("labelled") for n, r in ours.items()}),
        ("processor seconds of labelling and grouping", {n: r["cpu_seconds"].get("labelled") for n, r in ours.items()}),
        ("seconds of removal", {n: removal(r) for n, r in ours.items()}),
        (
            "memory above torch.export, in sizes of the weights",
            {n: memory(r, exports.get(n)) for n, r in large.items()},
        ),
    ):
        known = {name: value for name, value in found.items() if value is not None}
        if known:
            worst = max(known, key=lambda name: known[name])
            facts.append(
                (f"Penjing: {title}", f"median {median(known.values()):.2f}, most {known[worst]:.2f} ({worst})")
            )
    if theirs:
        sizes = [record["left"] for record in theirs.values() if passes(record, RUNS)]
        both = {name for name, record in theirs.items() if passes(record, RUNS) and passes(ours.get(name), RUNS)}
        facts += [
            ("Penjing: pruned and runs", _share(sum(passes(r, RUNS) for r in ours.values()), len(ours))),
            ("Torch-Pruning: pruned and runs", _share(len(sizes), len(theirs))),
            ("Torch-Pruning: median share of parameters left of those", f"{median(sizes):.3f}" if sizes else "-"),
        ]
        if both:
            facts.append(
                (
                    f"median share left where both run ({len(both)})",
                    f"Penjing {median(ours[n]['left'] for n in both):.3f}, "
                    f"Torch-Pruning {median(theirs[n]['left'] for n in both):.3f}",
                )
            )
    return facts


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _publish(
    facts: list[tuple[str, str]],
    names: list[str],
    ours: dict[str, Record],
    theirs: dict[str, Record],
    exports: dict[str, Record],
) -> None:
    from _tables import publish

    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("torchvision", "timm", "transformers", "torch-pruning")
    )
    publish("coverage_summary", ["what", "measured"], [*map(list, facts), ["libraries", libraries]])
    rows = []
    for name in names:
        record, other = ours.get(name, {"columns": {}}), theirs.get(name)
        seconds = record.get("seconds", {})
        failed = [title for key, title in COLUMNS.items() if record["columns"].get(key) is not True]
        failed += [key for key in why(record) if key not in COLUMNS]
        rows.append(
            [
                name,
                _number(record["params"] / 1e6, 1) if "params" in record else "-",
                "all pass" if not failed else "not: " + ", ".join(failed),
                _number(record.get("left"), 3),
                *(_number(seconds.get(key)) for key in ("captured", "labelled")),
                _number(removal(record)),
                _number(record.get("peak_mb", {}).get("pruned"), 0),
                _number(memory(record, exports.get(name))) if "weights_mb" in record else "-",
                "-" if other is None else ("runs" if passes(other, RUNS) else "fails"),
                _number((other or {}).get("left"), 3),
                _number((other or {}).get("seconds", {}).get("pruned")),
            ]
        )
    columns = ["network", "parameters, M", "columns", "left", "capture, s", "channels, s", "removal, s", "peak, MB"]
    columns += ["above export, × weights", "Torch-Pruning", "left", "prune, s"]
    publish("coverage", columns, rows)
    failed_rows = [
        [name, tool, column, _cell(text)]
        for tool, found in (("Penjing", ours), ("Torch-Pruning", theirs))
        for name, record in found.items()
        for column, text in why(record).items()
    ]
    publish("coverage_failures", ["network", "tool", "column", "first line"], failed_rows)
    large = [
        [
            name,
            f"{record['left']:.3f}",
            _number(record.get("ideal"), 3),
            _cell("; ".join(f"{share:.0%} {pin}" for pin, share in record["pins"].items())),
        ]
        for name, record in ours.items()
        if record.get("left", 0) > FEW
    ]
    publish(
        "coverage_large",
        ["network", "left", "if only inputs and outputs were pinned", "share of the parameters that each op pins"],
        large,
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:240]


def load(path: Path) -> Records:
    """Returns the last record of each network and tool in a file of JSON lines."""
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(record["model"], record["tool"]): record for record in records}
