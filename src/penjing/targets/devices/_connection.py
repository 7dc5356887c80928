"""The protocol of a connection to a device, and what all of them share."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from penjing.errors import PenjingError

CONNECT_SECONDS = 15  # after which a device that doesn't answer counts as out of reach
TRANSFER_SECONDS = 600.0  # for the files of one measurement


class Unreachable(PenjingError):
    """A device can't be reached, or the connection to it was lost."""


class Connection(Protocol):
    """A way to a device. Its methods raise `Unreachable` where the device doesn't answer, after a bounded time."""

    folder: str
    """The folder on the device in which temporary folders are made."""

    def run(self, command: str, seconds: float) -> tuple[int, str, str]:
        """Runs a line of the device's shell; returns its exit code, and what it wrote to standard output and error."""

    def send(self, files: Sequence[Path], folder: str) -> None:
        """Copies files into a folder of the device that is there."""

    def fetch(self, path: str) -> bytes:
        """Returns the content of one of the device's files."""


def called(
    command: Sequence[str], seconds: float, device: str, given: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs a program of this machine that talks to a device.

    Raises:
        Unreachable: it isn't installed, or took longer.
    """
    try:
        return subprocess.run(command, input=given, capture_output=True, check=False, timeout=seconds)
    except FileNotFoundError as error:
        raise Unreachable(f"{device} is reached by the program '{command[0]}', which isn't installed here.") from error
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"{device} didn't answer for {seconds:.0f} s.") from error


def told(output: bytes) -> str:
    """Returns the last lines of what a program wrote."""
    return output.decode(errors="replace").strip()[-500:]
