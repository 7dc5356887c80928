"""Finds a Chromium that can run without a window. Nothing is ever downloaded here."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

VARIABLE = "PENJING_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Without a sandbox of its own where it runs as root, which Chromium refuses otherwise; it opens pages that are made here alone.
_OPTIONS = (
    "--headless=shell",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
)


def chromium() -> str | None:
    """Returns the path of Chromium's program: `$PENJING_CHROMIUM`, or else one on the PATH; None where there is none."""
    told = os.environ.get(VARIABLE)
    if told:
        return told if Path(told).is_file() else None
    return next((found for name in _NAMES if (found := shutil.which(name)) is not None), None)


class Browser:
    """A Chromium without a window that shows one page. It ends when it is closed."""

    def __init__(self, program: str, address: str) -> None:
        """Opens a page.

        Args:
            program: the path of Chromium's program.
            address: the page's address.
        """
        self._profile = tempfile.TemporaryDirectory(prefix="penjing-chromium-", ignore_cleanup_errors=True)
        rootless = (
            ("--no-sandbox", "--no-zygote", "--single-process") if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        )
        self._process = subprocess.Popen(
            [program, *_OPTIONS, *rootless, f"--user-data-dir={self._profile.name}", address],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "HOME": self._profile.name},
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether Chromium runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends Chromium."""
        self._process.kill()
        self._process.wait()
        self._profile.cleanup()
