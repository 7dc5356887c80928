"""The log of a run: all lines that were said in a folder's runs, those included that a screen has drawn over since."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from penjing.lines import Lasting

LOG = "log.txt"

# Control characters are spelt out, so that a name in a line commands no terminal on which the log is read.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0))}


class RunLog:
    """Says lines, and appends each to a file, with the time of day.

    Whatever the file holds stays as it is. If it can't be written, this is said once, and the run goes on.
    """

    def __init__(self, say: Callable[[str], None], path: Path) -> None:
        """Takes what says a line, and the file."""
        self._say, self._path = say, path
        self._writable = True

    def __call__(self, line: str) -> None:
        """Says a line and notes it."""
        self._say(line)
        self.note(line)

    def note(self, line: str) -> None:
        """Notes a line without saying it."""
        if not self._writable:
            return
        try:
            append(self._path, line)
        except OSError as error:
            self._writable = False
            why = error.strerror or error
            self._say(Lasting(f"Warning: {self._path} can't be written ({why}), so this run keeps no log."))


def append(path: Path, line: str) -> None:
    """Appends a line to a log.

    Raises:
        OSError: the file can't be written.
    """
    parts = [part.translate(_CONTROLS) for part in line.split("\n")]
    text = f"{datetime.now():%Y-%m-%d %H:%M:%S} " + "\n                    ".join(parts) + "\n"
    with path.open("ab+") as stream:
        if stream.seek(0, 2):
            stream.seek(-1, 2)
            if stream.read(1) != b"\n":  # a killed run left half a line
                stream.write(b"\n")
        stream.write(text.encode("utf-8", "backslashreplace"))
