"""Writes report.json and report.html, and makes the page again from the JSON."""

import json
from pathlib import Path
from typing import Any

from penjing import records
from penjing.errors import PenjingError
from penjing.files import atomic_write
from penjing.report import _schema
from penjing.report._headline import headline
from penjing.report._page import render


def write(report: dict[str, Any], directory: Path | str) -> Path:
    """Checks the report, then writes report.json and report.html.

    `headline`, `notes` and `layers` are filled in where they are missing.

    Args:
        report: a report of schema 1 (docs of the format: `penjing.report._schema`); more keys are kept as they are.
        directory: where the two files go; made if it isn't there.

    Returns:
        The path of report.html.

    Raises:
        PenjingError: a key of the report is missing or wrong, or a file can't be written; the message says which or why.
            Nothing is then written.
    """
    directory = Path(directory)
    report = _complete(report)
    text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    # The page is drawn before anything is written, so that a report which can't be drawn leaves no file behind, and from the
    # text, so that `build` makes the same page byte for byte.
    page = render(json.loads(text))
    # File names that aren't UTF-8 reach Python as lone surrogates; \udcxx is also how JSON spells them.
    save(directory / "report.json", text.encode("utf-8", "backslashreplace"))
    return save(directory / "report.html", page)


def read(directory: Path | str) -> dict[str, Any]:
    """Returns the report of the run in `directory`.

    Raises:
        PenjingError: report.json is missing, isn't JSON, or isn't a report of schema 1.
    """
    path = Path(directory) / "report.json"
    if not path.exists():
        raise PenjingError(
            f"There is no report.json in '{directory}'. Give the folder that `penjing compress --out` wrote."
        )
    try:
        report = records.read(path)
    except PenjingError as error:
        raise PenjingError(f"'{path}' is no report: {error}. Run the compression again to remake it.") from error
    try:
        return _complete(report)
    except PenjingError as error:
        raise PenjingError(f"'{path}' is no report. {error}") from None


def build(directory: Path | str) -> Path:
    """Makes report.html again from the report.json in `directory`.

    Returns:
        The path of report.html.

    Raises:
        PenjingError: `read` raises it, or the page can't be written.
    """
    return save(Path(directory) / "report.html", render(read(directory)))


def _complete(report: Any) -> dict[str, Any]:
    _schema.check(report)
    return {"headline": headline(report), "notes": [], "layers": []} | report


def save(path: Path, content: bytes) -> Path:
    """Writes a page.

    Raises:
        PenjingError: it can't be written.
    """
    try:
        atomic_write(path, content)
    except OSError as error:
        raise PenjingError(f"Can't write '{path}': {error.strerror or error}.") from error
    return path
