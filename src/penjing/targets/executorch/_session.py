"""ExecuTorch sessions with explicit threads."""

import numpy as np
import torch

from penjing.targets._records import Artifact
from penjing.targets.executorch._runtime import Loaded


class XnnpackSession:
    """A loaded model on the CPU."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._names = [spec.name for spec in artifact.inputs]
        self._loaded = Loaded(artifact.path, threads)

    def run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Runs one call on inputs by name; returns the flat outputs."""
        outputs = self._loaded([torch.from_numpy(inputs[name]) for name in self._names])
        return [torch.as_tensor(value).numpy() for value in outputs]
