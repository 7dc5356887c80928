"""A problem of `milp` as JSON: what options cost and do alone, so that searches can be compared without a network or a device."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from penjing.planning.assignment import DAMAGE, Assignment, Joint

DIGITS = 6  # significant digits that are kept


def to_json(problem: Assignment, limits: Mapping[str, float]) -> dict[str, Any]:
    """Returns a problem with its limits as plain JSON; amounts that neither are limited nor are the damage are left out."""
    wanted = {DAMAGE, *limits}
    joints = []
    for joint in problem.joints:
        amounts = {
            name: _rounded(values) for name, values in joint.amounts.items() if name in wanted and np.any(values)
        }
        if amounts:
            joints.append({"places": list(joint.places), "amounts": amounts})
    return {
        "options": dict(problem.options),
        "joints": joints,
        "implied": [[list(given), list(then)] for given, then in problem.implied],
        "constants": {name: value for name, value in problem.constants.items() if name in wanted},
        "limits": dict(limits),
    }


def read(path: Path) -> tuple[Assignment, dict[str, float]]:
    """Returns a stored problem and its limits."""
    record = json.loads(path.read_text())
    joints = [
        Joint(tuple(one["places"]), {name: np.array(values, dtype=float) for name, values in one["amounts"].items()})
        for one in record["joints"]
    ]
    implied = [((given[0], given[1]), (then[0], then[1])) for given, then in record["implied"]]
    return Assignment(record["options"], joints, implied, record["constants"]), record["limits"]


def _rounded(values: np.ndarray) -> Any:
    return json.loads(json.dumps(values.tolist()), parse_float=lambda text: float(f"{float(text):.{DIGITS}g}"))
