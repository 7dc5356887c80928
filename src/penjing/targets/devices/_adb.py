"""Android devices, and boards that speak its protocol, reached by adb."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from penjing.targets.devices._address import Address
from penjing.targets.devices._connection import CONNECT_SECONDS, TRANSFER_SECONDS, Unreachable, called, told

# The device's shell writes a command's exit code itself, behind all output: `exec-out` never tells it, and `shell` only from
# Android 7 on. Output without this end was cut off, or is adb's own.
_ENDING = "; code=$?; echo; echo penjing-ended:$code"
_ENDED = re.compile(rb"\r?\npenjing-ended:(\d+)\r?\n\Z")


class Adb:
    """A device that is reached by adb; see `Connection`."""

    folder = "/data/local/tmp"

    def __init__(self, address: Address) -> None:
        self._device = address.device
        self._command = ["adb", *(["-s", address.host] if address.host else [])]

    def run(self, command: str, seconds: float) -> tuple[int, str, str]:
        """Runs a line of the device's shell. Where Android is older than 7, its two outputs come as one."""
        code, output, error = self._shell("shell", command, seconds)
        return code, output.decode(errors="replace"), told(error) or (told(output) if code != 0 else "")

    def send(self, files: Sequence[Path], folder: str) -> None:
        """Copies files into a folder of the device."""
        command = [*self._command, "push", *map(str, files), f"{folder}/"]
        done = called(command, TRANSFER_SECONDS + CONNECT_SECONDS, self._device, b"")
        if done.returncode != 0:
            raise Unreachable(f"The files can't be copied to {self._device}: {told(done.stderr)}")

    def fetch(self, path: str) -> bytes:
        """Returns the content of one of the device's files."""
        # exec-out, since shell may change bytes.
        code, content, _ = self._shell("exec-out", f"cat {shlex.quote(path)}", TRANSFER_SECONDS)
        if code != 0:
            raise Unreachable(f"{path} can't be copied from {self._device}: {told(content)}")
        return content

    def _shell(self, verb: str, command: str, seconds: float) -> tuple[int, bytes, bytes]:
        """Runs a line of the device's shell by one of adb's verbs; returns its exit code and its outputs."""
        done = called([*self._command, verb, f"({command}){_ENDING}"], seconds + CONNECT_SECONDS, self._device, b"")
        ended = _ENDED.search(done.stdout)
        if ended is None:
            said = told(done.stderr) or "the connection was lost"
            raise Unreachable(f"{self._device} can't be reached by adb: {said}. `adb devices` lists those that can.")
        return int(ended[1]), done.stdout[: ended.start()], done.stderr
