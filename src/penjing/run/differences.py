"""Says in words that a user knows what differs between two runs: limits, options, the weights file, the data; never hashes."""

from collections.abc import Mapping
from typing import Any

SHOWN = 3  # differences that a message names
FILES = {  # how a person calls the file behind each hash of a model's origin
    "weights_file": "the weights file differs",
    "model_file": "the model's file differs",
    "model_source_file": "the file with the model's code differs",
}


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], told_old: Mapping[str, Any], told_new: Mapping[str, Any]
) -> dict[str, str]:
    """Returns what differs, in words, by the name of the setting.

    Args:
        old: the settings of the earlier run.
        new: the settings of the later one.
        told_old: what the earlier run's folder tells beside its settings; see `Workspace.told`.
        told_new: the same of the later run.
    """
    found: dict[str, str] = {}
    for name in (one for one in sorted({*old, *new}) if old.get(one) != new.get(one)):
        if name == "model":
            found[name] = _of_models(told_old, told_new)
        elif name == "data":
            found[name] = _of_data(str(old.get(name)), str(new.get(name)))
        elif name == "budget":
            before, after = old.get(name) or {}, new.get(name) or {}
            limits = [one for one in after if before.get(one) != after[one]]
            found[name] = ", ".join(_was_and_is(one, before.get(one), after[one]) for one in limits)
        elif name == "teacher":
            found[name] = "the teacher differs"
        else:
            found[name] = _was_and_is(name, old.get(name), new.get(name))
    return found


def in_short(found: Mapping[str, str]) -> str:
    """Returns the first differences as one text."""
    return "; ".join(list(found.values())[:SHOWN]) or "made by another version"


def _was_and_is(name: str, old: Any, new: Any) -> str:
    was, now = ("none" if value is None else value for value in (old, new))
    return f"{name} was {was} and is {now}"


def _of_models(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = old.get("inputs") or {}, new.get("inputs") or {}
    known = [says for name, says in FILES.items() if name in before and name in after and before[name] != after[name]]
    if known:
        return " and ".join(known)
    if "structure" in old and "structure" in new:
        return "the weights differ" if old["structure"] == new["structure"] else "the network has other layers"
    return "the model's weights or layers differ"


def _of_data(old: str, new: str) -> str:
    before, after = old.rpartition(" ")[0], new.rpartition(" ")[0]
    if before != after:
        return f"the data were '{before}' and are '{after}'"
    return f"the data '{after}' differ: other samples, or prepared in another way"
