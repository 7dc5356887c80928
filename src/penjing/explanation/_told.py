"""An explanation in words: lines for a terminal, and a page for a notebook."""

from collections.abc import Mapping
from typing import Any

from penjing.explanation._statistics import CHANCE
from penjing.lines import html_table

MOST = 5  # classes and layers that a terminal shows


def as_text(told: Mapping[str, Any]) -> str:
    """Returns a few lines."""
    lines = [headline(told)]
    falls = [row for row in told["classes"] if row["change"]["value"] < 0]
    if falls:
        clear = sum(row["clear"] for row in falls)
        beyond = f"; {clear} beyond chance" if clear else "; none beyond chance"
        lines.append(f"{len(falls)} of {len(told['classes'])} classes fell{beyond}:")
        lines += [f"  {row['name']}: {fall(row)}" for row in falls[:MOST]]
        lines += [f"  … and {len(falls) - MOST} more"] if len(falls) > MOST else []
    if (line := confidence(told)) is not None:
        lines.append(line)
    if told["layers"]:
        worst = sorted(told["layers"], key=lambda row: row["signal_to_noise_db"])[:MOST]
        named = ", ".join(f"{row['path']} {row['signal_to_noise_db']:.0f} dB" for row in worst)
        lines.append(f"Noisiest layers, signal over noise: {named}.")
    if told["robustness"] is not None:
        lines.append(on_changed_images(told))
    return "\n".join([*lines, *told["missing"]])


def on_changed_images(told: Mapping[str, Any]) -> str:
    """Says by how much the metric falls on changed images, and where the small network falls furthest behind."""
    clean, *changed = told["robustness"]["rows"]
    falls = [clean[side] - sum(row[side] for row in changed) / len(changed) for side in ("before", "after")]
    worst = max(changed, key=lambda row: row["before"] - row["after"])
    sign = -1 if told["lower_is_better"] else 1
    return (
        f"On changed images the metric worsens in the mean by {falls[0]:.4f} before, by {falls[1]:.4f} after; the largest gap "
        f"is under {worst['corruption']} of severity {worst['severity']}: {sign * worst['before']:.4f} before, "
        f"{sign * worst['after']:.4f} after."
    )


def headline(told: Mapping[str, Any]) -> str:
    """Says in a sentence or two by how much the metric changed, and how many answers did."""
    parts = []
    if (change := told["change"]) is not None:
        sign = -1 if told["lower_is_better"] else 1
        before, after, moved = (sign * told[side]["value"] for side in ("before", "after", "change"))
        low, high = sorted(sign * change[end] for end in ("low", "high"))
        parts.append(
            f"{told['metric_name']}: {before:.4f} before, {after:.4f} after, {moved:+.4f} ({low:+.4f} to {high:+.4f}) on "
            f"{told['samples']:,} samples."
        )
    if (changed := told["changed"]) is not None:
        what = ""
        if told["lost"] is not None:
            what = f": {told['lost']:,} right before only, {told['gained']:,} right after only"
        parts.append(f"{changed:,} of {told['samples']:,} answers changed{what}.")
    if (chance := told["chance"]) is not None and told["change"] is not None:
        parts.append("The change is more than chance." if chance < CHANCE else "The change is within chance.")
    return " ".join(parts) or f"{told['samples']:,} samples were compared."


def fall(row: Mapping[str, Any]) -> str:
    """Says by how much a class changed."""
    change, sure = row["change"], ", beyond chance" if row["clear"] else ""
    return (
        f"{row['before']['value']:.3f} → {row['after']['value']:.3f}, {change['value']:+.3f} "
        f"({change['low']:+.3f} to {change['high']:+.3f}) on {row['samples']:,}{sure}"
    )


def confidence(told: Mapping[str, Any]) -> str | None:
    """Says how far the confidence is from the accuracy; None where it isn't known."""
    before, after = told["calibration_before"], told["calibration_after"]
    if before is None or after is None:
        return None
    return f"Expected calibration error: {before['error']:.3f} before, {after['error']:.3f} after."


def as_html(told: Mapping[str, Any]) -> str:
    """Returns tables for a notebook, all text escaped."""
    classes = [
        (
            row["name"], f"{row['samples']:,}", *(f"{row[side]['value']:.3f}" for side in ("before", "after")),
            _range(row["change"]), "yes" if row["clear"] else "",
        )
        for row in told["classes"]
    ]  # fmt: skip
    samples = [
        (
            str(one["index"]), one["file"] or one["text"] or "", one["label"] or "",
            *(f"{one[side]} {one[f'{side}_confidence']:.0%}" for side in ("before", "after")),
        )
        for one in told["shown"]
    ]  # fmt: skip
    layers = [(row["path"], f"{row['signal_to_noise_db']:.1f}") for row in told["layers"]]
    notes = [*filter(None, [confidence(told)]), *told["missing"]]
    return "".join([
        html_table(headline(told), ("Class", "Samples", "Before", "After", "Change", "Beyond chance"), classes),
        html_table("Changed samples", ("Index", "Sample", "True", "Before", "After"), samples) if samples else "",
        html_table("Layers", ("Layer", "Signal to noise, dB"), layers) if layers else "",
        html_table("", (), [], notes),
    ])  # fmt: skip


def _range(change: Mapping[str, float]) -> str:
    return f"{change['value']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})"
