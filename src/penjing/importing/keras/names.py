"""Which classes a `.keras` file may name: layers that have a form, and what goes with them."""

from pathlib import Path
from types import ModuleType
from typing import Any

from penjing.errors import PenjingError
from penjing.importing.keras.table import FORMS

MODELS = {"Sequential", "Functional", "Model", "InputLayer"}
DATA = {"__keras_tensor__", "__tuple__"}  # how Keras writes a layer's arguments
FUNCTIONS = {None, "builtins", "keras.activations"}  # homes of functions: in "builtins" Keras looks up its own by name


def check_names(path: Path, config: Any) -> None:
    """Checks a description before Keras makes what it names.

    Args:
        path: the file, for the error.
        config: the description, as read from JSON. Its `compile_config` isn't read: the model isn't compiled.

    Raises:
        PenjingError: it names code, a class of another package, or one that has no form.
    """
    allowed = FORMS.keys() | MODELS | DATA | _helpers()
    waiting = [value for key, value in config.items() if key != "compile_config"]
    waiting.append({key: config.get(key) for key in ("module", "class_name", "registered_name")})
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
            if "class_name" in one:
                _check(path, one, allowed)


def _check(path: Path, one: dict[str, Any], allowed: set[str]) -> None:
    home, kind, inner = one.get("module"), one["class_name"], one.get("config")
    name = inner.get("name", "?") if isinstance(inner, dict) else "?"
    if kind in ("Lambda", "__lambda__"):
        raise PenjingError(
            f"{path}: the layer '{name}' is a Lambda, which holds code that would run. Build the model without it, by "
            "layers of Keras' own."
        )
    trusted = "If you trust the file, load it yourself with keras.models.load_model, and give the model to penjing.from_keras."
    if isinstance(home, str) and home not in ("builtins", "keras") and not home.startswith("keras."):
        raise PenjingError(
            f"{path}: it names {home}.{kind}, which is no class of Keras' own, and isn't imported. {trusted}"
        )
    if kind == "function":
        known, wanted = home in FUNCTIONS, inner
    else:
        known, wanted = kind in allowed, kind
    registered = one.get("registered_name")
    if not known or registered not in (None, wanted):
        raise PenjingError(
            f"{path}: it names {home}.{kind} ('{name}', registered as {registered}), which has no form in "
            f"penjing.importing.keras.layers, and isn't made. {trusted}"
        )


def _helpers() -> set[str]:
    """Returns the classes that aren't layers: initialisers and the like, and what inner models are compiled with."""
    import keras

    homes: list[ModuleType] = [
        keras.initializers, keras.regularizers, keras.constraints, keras.dtype_policies,
        keras.optimizers, keras.optimizers.schedules, keras.losses,
    ]  # fmt: skip
    return {name for home in homes for name, one in vars(home).items() if isinstance(one, type)}
