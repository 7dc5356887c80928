"""`from_keras`: a trained Keras 3 model as a graph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.checks import FLAG, checked
from penjing.errors import PenjingError
from penjing.graph import Graph
from penjing.graph.capture.capture import capture
from penjing.importing.keras.build import build
from penjing.importing.keras.file import imported, load
from penjing.importing.keras.layout import IMAGE, to_first, to_last
from penjing.importing.network import Network

BATCH = 2  # samples of the example: `torch.export` would fix an axis of size 1
FREE_SIZE = 64  # of an axis that the model leaves free: deep networks halve an image five times
TOLERANCE = 1e-3  # largest difference as a share of the largest value of its channel
ROUNDING = 1e-6  # the same of the whole output: what sums of large float32 values leave in a small one


@checked(channels_first=FLAG)
def from_keras(
    model: Any, example_inputs: Tensor | Sequence[Tensor] | None = None, *, channels_first: bool = False
) -> Graph:
    """Reads a trained Keras 3 model, and captures it.

    Its layers become PyTorch's, under the names that they have in Keras; inside, images have their channels first. What comes
    out is checked against Keras' own answer to an example.

    Args:
        model: a Functional or Sequential model, of any backend, or a `.keras` file. A file from a stranger does no harm: code
            in it doesn't run, and no class but Keras' own is made.
        example_inputs: needed where the model leaves sizes other than the batch free, to say which ones you use.
        channels_first: whether images come in, and go out, as (batch, channels, height, width), as `pj.data` gives them; by
            default as in Keras, (batch, height, width, channels).

    Returns:
        The graph; its batch is free.

    Raises:
        PenjingError: Keras isn't installed, the model has no graph of layers, a layer has no form, or answers differ.
    """
    network, example = read_keras(model, example_inputs, channels_first)
    graph = capture(network, example)
    graph.name = Path(model).stem if isinstance(model, str | Path) else str(model.name)
    return graph


def read_keras(
    model: Any, example_inputs: Tensor | Sequence[Tensor] | None = None, channels_first: bool | None = None
) -> tuple[Network, tuple[Tensor, ...]]:
    """Returns a Keras model as a module, and example inputs.

    Args:
        model: see `from_keras`.
        example_inputs: see `from_keras`.
        channels_first: see `from_keras`; None finds it out by the shapes of the example.

    Raises:
        PenjingError: see `from_keras`.
    """
    keras = imported()
    model = load(Path(model)) if isinstance(model, str | Path) else model
    if not isinstance(model, keras.Model):
        raise PenjingError(f"{type(model).__name__} is no Keras model, and no path of a .keras file.")
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise PenjingError(
            f"The model '{model.name}' ({type(model).__name__}) has no graph of layers: it is a subclass with code of its own, "
            "or was never given an input shape. Build it with the functional API, or with keras.Input(…) first in a Sequential."
        )
    given = None
    if example_inputs is not None:
        given = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        if len(given) != len(model.inputs):
            raise PenjingError(
                f"The model '{model.name}' takes {len(model.inputs)} inputs, and {len(given)} are given."
            )
    first = _come_first(model, given) if channels_first is None else channels_first
    example = given or _example(model, first)
    network = build(model, first)
    _check(keras, model, network, example, first)
    return network, example


def _come_first(model: Any, given: tuple[Tensor, ...] | None) -> bool:
    """Tells whether examples have their channels first, by shapes that fit so, and not as Keras has them."""
    if given is None:
        return False
    for tensor, value in zip(model.inputs, given, strict=True):
        shape = tuple(tensor.shape)
        if len(shape) == IMAGE == value.ndim:
            return not _fits(shape, value.shape) and _fits((shape[0], shape[3], *shape[1:3]), value.shape)
    return False


def _fits(shape: tuple[int | None, ...], size: Sequence[int]) -> bool:
    return all(wanted in (None, one) for wanted, one in zip(shape, size, strict=True))


def _example(model: Any, first: bool) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for tensor in model.inputs:
        shape = [BATCH, *(FREE_SIZE if size is None else int(size) for size in tensor.shape[1:])]
        whole = str(tensor.dtype).startswith(("int", "uint"))
        value = torch.randint(0, 2, shape, generator=generator) if whole else torch.rand(shape, generator=generator)
        made.append(to_first(value).contiguous() if first else value)
    return tuple(made)


def _check(keras: Any, model: Any, network: Network, example: tuple[Tensor, ...], first: bool) -> None:
    """Raises where the network doesn't answer as Keras does."""
    given = [(to_last(value) if first else value).contiguous().numpy() for value in example]
    wanted = model(given[0] if len(given) == 1 else given, training=False)
    theirs = [
        np.asarray(keras.ops.convert_to_numpy(one))
        for one in (wanted if isinstance(wanted, list | tuple) else [wanted])
    ]
    with torch.no_grad():
        made = network(*example)
    for place, (mine, their) in enumerate(zip(made if isinstance(made, tuple) else (made,), theirs, strict=True)):
        ours = np.asarray(to_last(mine) if first else mine)
        if ours.shape != their.shape:
            apart = f"in shape, {ours.shape} and not {their.shape}"
        elif (wrong := differences(ours, their)).any():
            where = tuple(int(index) for index in np.argwhere(wrong)[0])
            apart = f"in {wrong.sum()} of {wrong.size} values, first at {where}, {ours[where]:.3g} and not {their[where]:.3g}"
        else:
            continue
        raise PenjingError(
            f"Output {place} of '{model.name}' differs from Keras' {apart}: a layer is read wrongly. Models that end at "
            "earlier layers show which; please report it."
        )


def differences(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Tells where two arrays of (…, channels) differ by more than rounding.

    The allowed difference is a share of the largest finite value of the channel, so that channels of small values are checked
    beside those of large ones. NaN and infinity must stand at the same places.

    Args:
        ours: the values to check.
        theirs: the right ones, of the same shape.

    Returns:
        True where they differ, of the same shape.
    """
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(theirs)
    size = np.abs(np.where(finite, theirs, 0))
    largest = size.max(axis=tuple(range(size.ndim - 1)) if size.ndim > 1 else None, initial=0.0)
    allowed = TOLERANCE * largest + ROUNDING * size.max(initial=0.0) + 1e-6
    with np.errstate(invalid="ignore"):
        near = np.abs(ours - theirs) <= allowed
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    return ~np.where(finite, near, same)
