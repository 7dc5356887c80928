"""An OpenSSH server on loopback, and a client that reaches it without asking anything."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SERVER = shutil.which("sshd") or next((p for p in ("/usr/sbin/sshd", "/usr/local/sbin/sshd") if Path(p).exists()), None)
WITHOUT = pytest.mark.skipif(
    SERVER is None or shutil.which("ssh") is None,
    reason="OpenSSH's client and server (openssh-server) aren't installed",
)


class Server:
    """A server of the user's own, on a port of its own; `address` is that of this very machine behind it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
                capture_output=True,
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        keys = folder / "authorized_keys"
        shutil.copyfile(folder / "user.pub", keys)
        keys.chmod(0o600)
        config = folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {keys}\n"
            f"PidFile {folder / 'pid'}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # a server of root's wants it
        self._process = subprocess.Popen(
            [str(SERVER), "-D", "-e", "-f", str(config)], stdout=subprocess.DEVNULL, stderr=(folder / "log").open("wb")
        )
        self._wait()
        self.address = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def python(self) -> str:
        """Returns the option of an address that names this interpreter, which has the runtimes."""
        return f"?python={sys.executable}"

    def client(self, folder: Path) -> Path:
        """Writes a program called ssh that calls the real one with the user's key; returns its folder, for the path."""
        folder.mkdir(exist_ok=True)
        program = folder / "ssh"
        program.write_text(
            f"#!/bin/sh\nexec {shutil.which('ssh')} -F none -i {self._folder / 'user'} -o IdentitiesOnly=yes "
            f'-o UserKnownHostsFile={self._folder / "known"} -o StrictHostKeyChecking=accept-new "$@"\n'
        )
        program.chmod(0o755)
        return folder

    def stop(self) -> None:
        """Ends the server and its connections."""
        self._process.terminate()
        self._process.wait()

    def _wait(self) -> None:
        for _ in range(200):
            if self._process.poll() is not None:
                pytest.skip(f"sshd can't be started here: {(self._folder / 'log').read_text().strip()[-200:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("sshd doesn't listen")
