"""Finds a Chromium that can run without a window. Nothing is ever downloaded here."""

import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from penjing.errors import PenjingError
from penjing.files import remove_folder, temporary_folder

VARIABLE = "PENJING_CHROMIUM"
PROFILE = "penjing-chromium"  # the name of the temporary folders that hold what a browser keeps
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = ("--headless=shell", "--disable-dev-shm-usage", "--no-first-run")
# Chromium takes commands from its file 3, and ends where the other end of that pipe is closed. This process holds that end, so
# Chromium ends with this process, even where nothing can be tidied up any more. The shell makes file 3 of its standard input.
_TIED = ("/bin/sh", "-c", 'exec "$@" 3<&0 4>&1 0</dev/null', "sh")
_GPU = {
    False: ("--disable-gpu",),
    True: ("--enable-unsafe-webgpu", "--enable-features=Vulkan", "--ignore-gpu-blocklist"),
}


def chromium() -> str | None:
    """Returns the path of Chromium's program: `$PENJING_CHROMIUM`, or else one on the PATH; None where there is none."""
    told = os.environ.get(VARIABLE)
    if told:
        return shutil.which(told)
    return next((found for name in _NAMES if (found := shutil.which(name)) is not None), None)


@cache
def chromium_version() -> str:
    """Returns the program's name and version, such as "Chromium 147.0.7727.0".

    Raises:
        PenjingError: the program doesn't start.
    """
    program = str(chromium())
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, env={**os.environ, "HOME": home}
        )
    if done.returncode != 0:
        raise PenjingError(f"{program} doesn't start: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def lacks_chromium() -> str:
    """Returns advice on what to install; "" where Chromium is there."""
    if chromium() is not None:
        return ""
    return f"Install Chromium or Chrome on the PATH (or set {VARIABLE} to its program)."


def _tree(process: int) -> Iterator[int]:
    """Yields a process and all that it started."""
    yield process
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        for child in tasks.read_text().split():
            yield from _tree(int(child))


def _told(process: int, key: str) -> int:
    with suppress(OSError):  # it ended meanwhile
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(key):
                return 1024 * int(line.split()[1])
    return 0


class Browser:
    """A Chromium without a window that shows one page. It ends when it is closed; but for Windows, it also ends with Python."""

    def __init__(self, program: str, address: str, *, compiled: bool = False, gpu: bool = False) -> None:
        """Opens a page.

        Args:
            program: the path of Chromium's program.
            address: the page's address.
            compiled: whether V8 optimises each function of WebAssembly before it runs it first.
            gpu: whether pages may use the machine's GPU.
        """
        tier = ("--js-flags=--no-liftoff --wasm-lazy-compilation",) if compiled else ()
        profile = temporary_folder(PROFILE)
        self._remove_profile = weakref.finalize(self, remove_folder, profile)
        rootless = (
            ("--no-sandbox", "--no-zygote", "--single-process") if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        )
        tied = os.name == "posix"
        start = [*_TIED, program, "--remote-debugging-pipe"] if tied else [program, "--remote-debugging-port=0"]
        self._process = subprocess.Popen(
            [*start, *_OPTIONS, *_GPU[gpu], *tier, *rootless, f"--user-data-dir={profile}", address],
            stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "HOME": str(profile)},
        )

    @property
    def alive(self) -> bool:
        """Whether Chromium runs."""
        return self._process.poll() is None

    def resident(self, key: str) -> int:
        """Returns the sum of a number of bytes that Linux tells of each of the browser's processes, such as "VmHWM:"."""
        return sum(_told(process, key) for process in _tree(self._process.pid))

    def close(self) -> None:
        """Ends Chromium."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._remove_profile()
