"""Devices that OpenSSH's client reaches, without passwords: by a key that the device knows."""

import io
import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path

from penjing.targets.devices._address import Address
from penjing.targets.devices._connection import CONNECT_SECONDS, TRANSFER_SECONDS, Unreachable, called, told

# Between questions whether the device is there. The connection counts as lost after three without an answer.
ALIVE_SECONDS = 5
FAILED = 255  # what ssh itself returns where it can't connect, or loses the connection


class Ssh:
    """A device that is reached by ssh; see `Connection`."""

    folder = "/tmp"

    def __init__(self, address: Address) -> None:
        self._device = address.device
        self._command = [
            "ssh", "-T",
            "-o", "BatchMode=yes",  # asks nothing: neither for a password nor whether to trust an unknown host
            "-o", f"ConnectTimeout={CONNECT_SECONDS}",
            "-o", f"ServerAliveInterval={ALIVE_SECONDS}", "-o", "ServerAliveCountMax=3",
            *(["-p", str(address.port)] if address.port is not None else []),
            *(["-l", address.user] if address.user is not None else []),
            "--", address.host,
        ]  # fmt: skip

    def run(self, command: str, seconds: float) -> tuple[int, str, str]:
        """Runs a line of the device's shell."""
        done = self._call(command, seconds)
        return done[0], done[1].decode(errors="replace"), told(done[2])

    def send(self, files: Sequence[Path], folder: str) -> None:
        """Copies files into a folder of the device, as a tar archive through the connection."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for file in files:
                tar.add(file, file.name)
        code, _, error = self._call(f"tar -xf - -C {shlex.quote(folder)}", TRANSFER_SECONDS, archive.getvalue())
        if code != 0:
            raise Unreachable(f"The files can't be copied to {self._device}: {told(error)}")

    def fetch(self, path: str) -> bytes:
        """Returns the content of one of the device's files."""
        code, content, error = self._call(f"cat {shlex.quote(path)}", TRANSFER_SECONDS)
        if code != 0:
            raise Unreachable(f"{path} can't be copied from {self._device}: {told(error)}")
        return content

    def _call(self, command: str, seconds: float, given: bytes | None = b"") -> tuple[int, bytes, bytes]:
        done = called([*self._command, command], seconds + CONNECT_SECONDS, self._device, given)
        if done.returncode == FAILED:
            raise Unreachable(
                f"{self._device} can't be reached by ssh: {told(done.stderr) or 'the connection was lost'}. Try `ssh "
                f"{self._device.partition('://')[2]} true`: it must work without a password (ssh-copy-id) and without questions."
            )
        return done.returncode, done.stdout, done.stderr
