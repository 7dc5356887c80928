"""Numbers as people read them. Null is always "not measured"; no function here guesses."""

import math
from collections.abc import Mapping
from typing import Any

NOT_MEASURED = "not measured"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def digits(value: float) -> str:
    """Returns three significant digits without an exponent: 0.0123, 1.23, 12.3, 123, 1,234."""
    size = abs(value)
    if size >= 999.5:
        return f"{value:,.0f}"
    if size >= 99.95:
        return f"{value:.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995 or value == 0:
        return f"{value:.2f}" if value else "0"
    return f"{value:.{2 - math.floor(math.log10(size))}f}"


def milliseconds(value: float | None) -> str:
    """Returns "1.23 ms", or microseconds or seconds where these read better."""
    if value is None:
        return NOT_MEASURED
    if 0 < abs(value) < 0.0995:
        return f"{digits(value * 1e3)} µs"
    return f"{digits(value)} ms" if abs(value) < 9999.5 else f"{digits(value / 1e3)} s"


def size(value: float | None) -> str:
    """Returns bytes in decimal units, "853 kB"."""
    return NOT_MEASURED if value is None else _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def count(value: float | None) -> str:
    """Returns "9,408", and "853 k", "25.6 M" or "4.09 G" from ten thousand on."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if abs(value) < 9999.5 else _scaled(value, ("", "k", "M", "G", "T"))


def millijoules(value: float | None) -> str:
    """Returns "1.23 mJ"."""
    return NOT_MEASURED if value is None else f"{digits(value)} mJ"


def plain(value: float | None) -> str:
    """Returns a number without a unit; very small ones keep their exponent."""
    if value is None:
        return NOT_MEASURED
    if not 0 < abs(value) < 1e-3:
        return digits(value).replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")


def percent(value: float | None) -> str:
    """Returns "98.2 %"; a share below 1 never reads as 100 %, and a share above 0 never as 0 %."""
    if value is None:
        return NOT_MEASURED
    for places in (1, 2, 3):
        text = f"{value * 100:.{places}f}"
        if (float(text) != 100 or value == 1) and (float(text) != 0 or value == 0):
            return f"{text} %"
    return "> 99.999 %" if value > 0.5 else "< 0.001 %"


def duration(seconds: float | None) -> str:
    """Returns "0.4 s", "12 s", "3 min 20 s" or "1 h 5 min"."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def signed(value: float, places: int = 1) -> str:
    """Returns a number with its sign, using the typographic minus."""
    return f"{value:+.{places}f}".replace("-", "−")


def shape(value: Any) -> str:
    """Returns "64×32×32" for a list of sizes."""
    return "×".join(str(size) for size in value) if isinstance(value, list | tuple) else str(value)


def anything(value: Any) -> str:
    """Returns a JSON value on one line: a plan's setting, a fact about the machine."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {anything(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        numbers = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
        return shape(value) if numbers else ", ".join(anything(item) for item in value)
    return str(value)


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    number = f"{value:.0f}" if power == 0 else digits(value)
    return f"{number} {units[power]}".strip()
