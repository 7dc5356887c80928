"""Calls with any number of samples, also where the file has a fixed batch."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from penjing.errors import PenjingError
from penjing.targets._records import Artifact, TensorSpec
from penjing.targets._registry import Session

Value = Tensor | np.ndarray


class AnyBatch:
    """A session that takes any number of samples.

    Where the file has a fixed batch, it runs the samples in parts of that size, and fills the last part up with copies of its
    last sample.
    """

    def __init__(self, artifact: Artifact, session: Session) -> None:
        self._artifact, self._session = artifact, session

    def run(self, inputs: Mapping[str, Value]) -> list[np.ndarray]:
        """Runs the inputs, given by name; returns the flat outputs.

        Raises:
            PenjingError: a shape doesn't fit, or outputs of several parts can't be joined.
        """
        count, batch = samples_of(list(inputs.values())), self._artifact.batch
        if batch is None or count in (None, 0, batch):
            return self._session.run(self._fitted(inputs))
        return self._in_parts(inputs, count, batch)

    def _in_parts(self, inputs: Mapping[str, Value], count: int, batch: int) -> list[np.ndarray]:
        parts = []
        for start in range(0, count, batch):
            rows = np.minimum(np.arange(start, start + batch), count - 1)
            chosen = {name: value[rows] if samples_of([value]) == count else value for name, value in inputs.items()}
            parts.append(self._session.run(self._fitted(chosen)))
        for name, value in zip(self._artifact.outputs, parts[0], strict=True):
            if value.ndim == 0 or len(value) != batch:
                raise PenjingError(
                    f"{self._artifact.path.name} takes {batch} samples, not {count}, and its output '{name}' of shape "
                    f"{value.shape} doesn't hold one row per sample, so that outputs of several calls can't be joined."
                )
        return [np.concatenate(values)[:count] for values in zip(*parts, strict=True)]

    def _fitted(self, inputs: Mapping[str, Value]) -> dict[str, np.ndarray]:
        return {spec.name: fit(spec, inputs[spec.name]) for spec in self._artifact.inputs}


def samples_of(inputs: Sequence[Value]) -> int | None:
    """Returns the size of the first input's first axis; None where there is none."""
    shape = np.shape(inputs[0]) if inputs else ()
    return shape[0] if shape else None


def fit(spec: TensorSpec, value: Value) -> np.ndarray:
    """Returns a value as a contiguous array of the input's dtype.

    Raises:
        PenjingError: the input takes other shapes.
    """
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if len(array.shape) != len(spec.shape) or any(
        wanted not in (None, size) for size, wanted in zip(array.shape, spec.shape, strict=True)
    ):
        shape = ", ".join("*" if size is None else str(size) for size in spec.shape)
        raise PenjingError(f"Input '{spec.name}' has shape {tuple(array.shape)}; the lowered model takes ({shape}).")
    return np.ascontiguousarray(array, dtype=spec.dtype)
