"""Spreads values over options: a command that takes a dataclass gets an option for each of its fields."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the fields of its dataclasses as options, each in the place of the keyword that receives the value.

    A field's annotation describes its option, as a parameter's of a command does.
    """
    shown: list[inspect.Parameter] = []
    values: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command).parameters.values():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            values[parameter.name] = parameter.annotation
            options = inspect.signature(parameter.annotation).parameters.values()
            shown += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
        else:
            shown.append(parameter)

    @functools.wraps(command)
    def call(**given: Any) -> None:
        made = {
            name: kind(**{field.name: given.pop(field.name) for field in fields(kind)}) for name, kind in values.items()
        }
        command(**given, **made)

    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return call
