"""Adds to a finished run how its files do on changed images."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from penjing import report
from penjing.data import Data
from penjing.explanation import robustness
from penjing.run.workspace import INNER
from penjing.targets import find_target, open_artifact, session


def add_robustness(out: Path | str, data: Data, *, seed: int = 0) -> dict[str, Any]:
    """Judges both files of a finished run on changed images; writes the result into its report and its page.

    Args:
        out: the folder of the run.
        data: the images, with labels.
        seed: of the noise.

    Returns:
        The content of report.json.

    Raises:
        PenjingError: the data aren't labelled images, or `out` holds no finished run.
    """
    out = Path(out)
    content = report.read(out)
    name, threads = content["target"]["name"], content["target"]["threads"]
    suffix = find_target(name).suffix
    before, after = (
        session(open_artifact(path, name), threads)
        for path in (out / INNER / f"original{suffix}", out / f"model{suffix}")
    )
    content["robustness"] = asdict(robustness(before, after, data, seed=seed))
    report.write(content, out)
    return content
