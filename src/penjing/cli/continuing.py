"""The options of an earlier run, which hold wherever the command line of a later one doesn't say otherwise."""

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from penjing.errors import PenjingError

if TYPE_CHECKING:
    from penjing.run.earlier import EarlierRun

LIFTED = "none"  # the value of an option that lifts a limit which the earlier run had
AUTO = "auto"  # the value of a setting whose option isn't given then

V = TypeVar("V")

StartFrom = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="the folder of an earlier run: its model, data and options hold where no others are given (--size none lifts a "
        "limit), and what it measured and trained serves again",
    ),
]


class Options:
    """The options of a command, and those of an earlier run behind them."""

    def __init__(self, context: typer.Context, earlier: "EarlierRun | None") -> None:
        """Takes what the command line gave, and the earlier run; None without one."""
        self._given = {
            name for name in context.params if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"
        }
        self._settings: Mapping[str, Any] = {} if earlier is None else earlier.settings

    def without(self, name: str) -> "Options":
        """Returns these options without what the earlier run had for one of them."""
        other = copy.copy(self)
        other._settings = {key: value for key, value in self._settings.items() if key != name}
        return other

    def plain(self, **options: Any) -> dict[str, Any]:
        """Returns options by name: as given, or else as they were in the earlier run."""
        return {name: self._before(name, value) for name, value in options.items()}

    def spread(self, value: V) -> V:
        """Returns a value whose fields are options, each as given, or else as it was in the earlier run."""
        own = {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]
        return replace(value, **{name: self._before(name, one) for name, one in own.items()})  # type: ignore[type-var]

    def limits(self, value: V) -> V:
        """Returns the limits of a budget in the same way; "none" lifts one."""
        before = self._settings.get("budget") or {}
        own = {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]
        found = {
            name: one if name in self._given else before[name] if before.get(name) is not None else one
            for name, one in own.items()
        }
        lifted = {name: None if self._settings and one == LIFTED else one for name, one in found.items()}
        return replace(value, **lifted)  # type: ignore[type-var]

    def _before(self, name: str, value: Any) -> Any:
        if name in self._given or name not in self._settings:
            return value
        before = self._settings[name]
        if before == AUTO and not isinstance(value, str):
            return value  # an option that is not given stands for "auto"
        return ",".join(before) if name == "techniques" else before


def folder_for(start_from: Path | None, out: Path) -> Path:
    """Returns the folder for a result.

    Raises:
        PenjingError: it is that of the earlier run.
    """
    if start_from is not None and start_from.resolve() == out.resolve():
        raise PenjingError(
            f"{out} is the folder of the earlier run: name another one for the result, such as --out {out}-2."
        )
    return out


def check_teacher_again(earlier: "EarlierRun | None", teacher: list[str] | None) -> None:
    """Makes sure that the teacher of the earlier run is named again, since its folder doesn't hold it.

    Raises:
        PenjingError: it isn't.
    """
    if earlier is not None and earlier.settings.get("teacher") is not None and not teacher:
        raise PenjingError(
            f"Another model than the original taught in {earlier.out}, which doesn't hold it: name it again by --teacher."
        )
