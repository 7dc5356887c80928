"""What the folder of a run tells of its data: the text that names them, and how images become inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing import records, report
from penjing.data import Preprocess
from penjing.errors import PenjingError


def source_of(out: Path) -> str:
    """Returns the text that names the data of a finished run on the command line; "" where its report doesn't tell it.

    Raises:
        PenjingError: the report is damaged.
    """
    return str(report.read(out).get("data_source") or "") if (out / "report.json").is_file() else ""


def preprocess_of(out: Path, told: Mapping[str, Any] | None = None) -> Preprocess | None:
    """Returns how images become inputs in a run; None where its folder doesn't say.

    Args:
        out: the folder.
        told: what the folder tells of a run that may not be finished; see `Workspace`.

    Raises:
        PenjingError: preprocess.json is damaged.
    """
    file = out / "preprocess.json"
    if not file.is_file():
        record = (told or {}).get("preprocess")
        return None if record is None else Preprocess.from_dict(record)
    try:
        found = records.read(file)
        return None if found is None else Preprocess.from_dict(found)
    except PenjingError as error:
        raise PenjingError(f"'{file}' doesn't say how images become inputs: {error}") from error
