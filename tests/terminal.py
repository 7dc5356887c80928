"""A pseudo-terminal for tests: what a program wrote on it, and what a person then sees."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CODE = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")


@dataclass
class Terminal:
    """The program's end of a terminal, and what was written on it.

    Attributes:
        slave: the file descriptor that the program writes to.
        written: what it wrote.
    """

    slave: int
    written: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        """What was written so far."""
        return self.written.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """What a person sees once all of it was written, line by line, without empty lines at the end."""
        return seen(self.text)

    @property
    def shows_cursor(self) -> bool:
        """Whether the cursor is there."""
        return self.text.rfind("\x1b[?25h") >= self.text.rfind("\x1b[?25l")


def seen(text: str) -> list[str]:
    """Returns the lines on a high and wide screen after a text that moves the cursor up and erases lines."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(text):
        if code := CODE.match(text, at):
            _, number, letter = code.groups()
            if letter == "A":
                row = max(0, row - int(number or 1))
            elif letter == "K":
                assert number == "2", "only whole lines are erased"
                lines[row] = ""
            else:
                assert letter in "mhl", f"a code that isn't known here: {code[0]!r}"
            at = code.end()
            continue
        if text[at] == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif text[at] == "\r":
            column = 0
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + text[at] + line[column + 1 :]
            column += 1
        at += 1
    found = [line.rstrip() for line in lines]
    while found and not found[-1]:
        found.pop()
    return found


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Yields a terminal; what is written on it is read until the end of the block."""
    master, slave = os.openpty()
    made = Terminal(slave)

    def listen() -> None:
        while True:
            try:
                some = os.read(master, 4096)
            except OSError:  # the other end is closed
                return
            if not some:
                return
            made.written += some

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield made
    finally:
        os.close(slave)
        listener.join(timeout=10)
        os.close(master)
