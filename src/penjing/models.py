"""Models and their weights as named on a command line: zoo networks, factories, saved graphs, weight files."""

import pickle
import re
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from penjing import zoo
from penjing.damage import DAMAGE, described
from penjing.data import Data
from penjing.errors import PenjingError, with_article
from penjing.factory import call_factory
from penjing.files import sha256
from penjing.graph import Graph, capture, load, load_exported
from penjing.loaders import first
from penjing.tasks import by_name, each_input

ELSEWHERE = (".onnx", ".keras")  # files of other tools that hold a whole network
WHOLE = (".penjing", ".pt2", *ELSEWHERE)  # files that hold a whole network
WEIGHTS = (".safetensors", ".pt", ".pth")  # files that hold weights alone
SHOWN = 4  # keys or shapes that an error lists


@dataclass(frozen=True)
class Loaded:
    """A model ready to be captured, or captured already.

    Attributes:
        model: the module or graph.
        example_inputs: inputs as it is called; None for a graph.
        name: for reports.
        hashes: sha256 of the files that it came from.
    """

    model: nn.Module
    example_inputs: Any
    name: str
    hashes: dict[str, str] = field(default_factory=dict)

    def graph(self) -> Graph:
        """Returns the model as a graph, named as the user named it."""
        graph = self.model if isinstance(self.model, Graph) else capture(self.model, self.example_inputs)
        graph.name = self.name
        return graph


def load_model(spec: str, weights: Path | None = None, data: Data | None = None) -> Loaded:
    """Returns the model that `spec` names.

    Args:
        spec: `zoo:NAME`, `package.module:factory`, `file.py:factory`, or a `.penjing`, `.pt2`, `.onnx` or `.keras` file. A
            factory returns an `nn.Module`, or a pair of it and its example inputs.
        weights: a `.safetensors` file, or a `.pt` file that loads with `weights_only=True`.
        data: example inputs are taken from it where the model brings none; a zoo network gets its number of classes.

    Raises:
        PenjingError: the model or its weights can't be loaded, or no example inputs are known.
    """
    hashes = {"weights_file": sha256(weights)} if weights is not None and weights.is_file() else {}
    if spec.endswith(WHOLE):
        hashes |= {"model_file": sha256(Path(spec))} if Path(spec).is_file() else {}
    if weights is not None and spec.endswith((".penjing", *ELSEWHERE)):
        raise PenjingError(f"A {Path(spec).suffix} file holds its own weights; leave --weights out.")
    if spec.endswith(".penjing"):
        return Loaded(load(spec), None, Path(spec).stem, hashes)
    model, example, name = _build(spec, data)
    if weights is not None:
        load_weights(model, weights)
    if example is None:
        example = _example_from(data)
    if example is None:
        raise PenjingError(
            f"No example inputs are known for {spec}: let the factory return (model, example_inputs), or give data."
        )
    return Loaded(model, example, name, hashes | _source(spec))


def _source(spec: str) -> dict[str, str]:
    """Returns the hash of the file that a factory stands in."""
    where = spec.rpartition(":")[0]
    if spec.startswith("zoo:") or spec.endswith(WHOLE) or not where:
        return {}
    path = (
        Path(where).expanduser() if where.endswith(".py") else Path(getattr(sys.modules[where], "__file__", None) or "")
    )
    return {"model_source_file": sha256(path)} if path.is_file() else {}


def _build(spec: str, data: Data | None) -> tuple[nn.Module, Any, str]:
    if spec.startswith("zoo:"):
        name = spec.removeprefix("zoo:")
        classes = len(data.classes) if data is not None and data.classes else None
        return zoo.build(name, num_classes=classes), _example_from(data) if data else zoo.example_input(name), name
    if spec.endswith(".pt2"):
        module, example = load_exported(spec)
        return module, example, Path(spec).stem
    if spec.endswith(".onnx"):
        from penjing.importing.onnx import read_onnx

        read, inputs = read_onnx(spec, _example_from(data))
        return read, inputs, Path(spec).stem
    if spec.endswith(".keras"):
        from penjing.importing.keras import read_keras

        network, inputs = read_keras(spec, _example_from(data))
        return network, inputs, Path(spec).stem
    if spec.endswith(WEIGHTS):
        if Path(spec).is_file():
            _read_weights(Path(spec))  # says what a file holds that holds no weights
        raise PenjingError(
            f"{spec} holds weights, and no network that they belong to. Name the network (zoo:NAME, package.module:factory or "
            f"file.py:factory), and give the file as --weights {spec}, or, for a teacher, as --teacher-weights {spec}."
        )
    made = call_factory(spec)
    example = None
    if isinstance(made, tuple) and len(made) == 2:
        made, example = made
    if not isinstance(made, nn.Module):
        raise PenjingError(f"{spec} returned {with_article(type(made).__name__)}; it must return an nn.Module.")
    return made, example, spec.rpartition(":")[2]


def _example_from(data: Data | None) -> Any:
    """Returns two samples of the data's inputs: a tuple of them in order, or a mapping by name."""
    if data is None:
        return None
    for name in ("calibration", "validation", "train"):
        if (loader := getattr(data, name)) is not None:
            inputs, _ = data.task.split(first(loader, f"data.{name}"))
            some = each_input(inputs, lambda tensor: tensor[:2])
            return by_name(some) or some
    return None


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a state dict into `model`.

    Raises:
        PenjingError: the file can't be read without running code, its keys or shapes don't fit the model's, or a tensor
            isn't a plain one.
    """
    state = _read_weights(path)
    wanted = model.state_dict()
    # Counters of batches that old files lack play no part in what a model computes.
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    surplus = [k for k in state if k not in wanted]
    found_in_both = [k for k in wanted if k in state]
    kinds = {k: kind for k in found_in_both if (kind := _odd(state[k], wanted[k])) is not None}
    shapes = [
        f"{k}: {tuple(state[k].shape)} in the file, {tuple(wanted[k].shape)} in the model"
        for k in found_in_both
        if k not in kinds and state[k].shape != wanted[k].shape
    ]
    listed = {
        "missing": missing,
        "not in the model": surplus,
        "other shapes": shapes,
        "other numbers": [f"{k}: {kind}" for k, kind in kinds.items()],
    }
    problems = [
        f"{title}: {', '.join(found[:SHOWN])}{f' and {len(found) - SHOWN} more' if len(found) > SHOWN else ''}"
        for title, found in listed.items()
        if found
    ]
    if problems:
        raise PenjingError(f"{path} doesn't fit {type(model).__name__}. " + ". ".join(problems) + ".")
    model.load_state_dict({**wanted, **state})


def _odd(given: Tensor, wanted: Tensor) -> str | None:
    """Returns what a stored tensor is if it isn't a plain one of the kind of numbers that the model has there."""
    for odd, what in (
        (given.is_meta, "a shape on 'meta' without values"),
        (given.is_quantized, f"quantised ({given.dtype})"),
        (given.layout != torch.strided or given.is_nested, f"sparse or nested ({given.layout})"),
        (_kind(given) != _kind(wanted), f"{given.dtype} in the file, {wanted.dtype} in the model"),
    ):
        if odd:
            return what
    return None


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "real" if tensor.is_floating_point() else "bool" if tensor.dtype == torch.bool else "whole"


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise PenjingError(f"There is no weights file {path}.")
    if path.suffix in WHOLE:
        raise PenjingError(
            f"{path} is a {path.suffix} file, which holds a whole network with its weights: give it as the model (or the "
            "teacher) itself, and no weights beside it."
        )
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else _plain(path)
    except _Unreadable as error:
        raise PenjingError(
            f"{path} holds no plain weights: {error}. Only state dicts of tensors are read; save one with "
            "torch.save(model.state_dict(), …) or as .safetensors."
        ) from error
    except DAMAGE as error:
        raise PenjingError(f"{path} can't be read as safetensors: {described(error)}.") from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise PenjingError(
            f"{path} holds no state dict (names with tensors), but {with_article(type(state).__name__)}."
        )
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _object_of_code(told: str) -> str | None:
    """Returns the class that PyTorch's refusal names; None where it names none, or a function of Python's own library."""
    found = re.search(r"GLOBAL ([\w.]+)", told)
    return found[1] if found is not None and found[1].partition(".")[0] not in sys.stdlib_module_names else None


class _Unreadable(Exception):
    """Why a file gives no plain tensors."""


def _plain(path: Path) -> Any:
    """Reads what `torch.save` wrote without running what stands in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols that this reader may or may not know
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text advises to read the file without this protection.
        if (kind := _object_of_code(str(error))) is not None:
            raise PenjingError(
                f"{path} holds no plain weights, but an object of {kind}, probably from torch.save(model), and reading it runs "
                f"code. If you trust the file, run this once where the model's code is: model = torch.load('{path.name}', "
                "weights_only=False); torch.save(model.state_dict(), 'weights.pt'). Then name a function that builds the model, "
                "file.py:function, with --weights weights.pt; or keep the network itself, by penjing.capture(model, "
                "example_inputs).save('model.penjing'), and name that file."
            ) from error
        raise _Unreadable("reading it would run code that stands in it, or it is damaged") from error
    except Exception as error:  # damaged bytes make the reader fail in any way
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _Unreadable(f"it is damaged or no such file ({first.rstrip('.')})") from error
