"""What a device sends back, read as plain values."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing import records
from penjing.errors import PenjingError
from penjing.targets._device import DeviceFacts


@dataclass(frozen=True)
class Answer:
    """The result of the program that measures; see `penjing.targets.bench`.

    Attributes:
        runtime: version of the runtime.
        machine: what the device is.
        files: the SHA-256 of each job's main file, in hexadecimal.
        times: seconds of each timed call, by job.
        outputs: the outputs of one call, by job, as text.
        profiles: what the runtime's part returned, by job.
        memory: peak bytes and the model's part of them, by job; None where the system doesn't tell.
    """

    runtime: str
    machine: DeviceFacts
    files: dict[str, str]
    times: dict[str, tuple[float, ...]]
    outputs: dict[str, str]
    profiles: dict[str, Any]
    memory: dict[str, tuple[int, int] | None]

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Answer":
        """Reads the text of a result.

        Args:
            content: the text.
            name: of the device or the file, for errors.

        Raises:
            PenjingError: it isn't a result.
        """
        try:
            return records.convert(records.parse(content), cls)
        except PenjingError as error:
            raise PenjingError(f"What {name} holds isn't the result of a measurement: {error}.") from error

    def outputs_of(self, job: str) -> list[np.ndarray]:
        """Returns the outputs of one call.

        Raises:
            PenjingError: they can't be read.
        """
        try:
            with np.load(io.BytesIO(base64.b64decode(self.outputs[job], validate=True)), allow_pickle=False) as arrays:
                return [arrays[f"arr_{place}"] for place in range(len(arrays.files))]
        except Exception as error:  # a damaged archive may make the reader raise anything
            raise PenjingError(f"The outputs of '{job}' that were sent can't be read: {error}") from error
