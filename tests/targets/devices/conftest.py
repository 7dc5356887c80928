import os

import pytest
from sshd import SERVER, Server

from penjing.targets.devices._ssh import Ssh
from penjing.targets.devices._target import on_device


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if SERVER is None:
        pytest.skip("OpenSSH's server isn't installed")
    made = Server(tmp_path_factory.mktemp("sshd"))
    yield made
    made.stop()


@pytest.fixture
def reached(server, tmp_path, monkeypatch):
    """An address of this machine, through the server."""
    monkeypatch.setenv("PATH", f"{server.client(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "device").mkdir()
    monkeypatch.setattr(Ssh, "folder", str(tmp_path / "device"))  # other tests may be at /tmp at the same time
    on_device.cache_clear()
    yield lambda runtime: f"{server.address}/{runtime}{server.python()}"
    on_device.cache_clear()
