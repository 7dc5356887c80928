"""Android devices, and boards that speak its protocol, reached by adb."""

from collections.abc import Sequence
from pathlib import Path

from penjing.targets.devices._address import Address
from penjing.targets.devices._connection import CONNECT_SECONDS, TRANSFER_SECONDS, Unreachable, called, told

# What adb says where no device answers; its exit code is 1 then, which programs on the device return too.
_NO_DEVICE = ("error: ", "adb: ", "* failed to start daemon")


class Adb:
    """A device that is reached by adb; see `Connection`."""

    folder = "/data/local/tmp"

    def __init__(self, address: Address) -> None:
        self._device = address.device
        self._command = ["adb", *(["-s", address.host] if address.host else [])]

    def run(self, command: str, seconds: float) -> tuple[int, str, str]:
        """Runs a line of the device's shell."""
        code, output, error = self._call(["shell", "-T", command], seconds)
        return code, output.decode(errors="replace"), told(error)

    def send(self, files: Sequence[Path], folder: str) -> None:
        """Copies files into a folder of the device."""
        code, _, error = self._call(["push", *map(str, files), f"{folder}/"], TRANSFER_SECONDS)
        if code != 0:
            raise Unreachable(f"The files can't be copied to {self._device}: {told(error)}")

    def fetch(self, path: str) -> bytes:
        """Returns the content of one of the device's files."""
        code, content, error = self._call(["exec-out", "cat", path], TRANSFER_SECONDS)
        if code != 0:
            raise Unreachable(f"{path} can't be copied from {self._device}: {told(error)}")
        return content

    def _call(self, arguments: Sequence[str], seconds: float) -> tuple[int, bytes, bytes]:
        done = called([*self._command, *arguments], seconds + CONNECT_SECONDS, self._device, b"")
        said = told(done.stderr)
        if done.returncode != 0 and said.startswith(_NO_DEVICE):
            raise Unreachable(f"{self._device} can't be reached by adb: {said}. `adb devices` lists those that can.")
        return done.returncode, done.stdout, done.stderr
