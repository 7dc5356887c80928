"""Keeps what libraries write to standard error, past Python, off the terminal."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STANDARD_ERROR = 2  # its number among a process's files


@contextmanager
def caught() -> Iterator[Callable[[], list[str]]]:
    """Catches what is written to standard error in the block; yields a function that returns its lines so far."""
    try:
        usual = os.dup(STANDARD_ERROR)
    except OSError:  # there is no standard error, so that nothing can be written there
        yield list
        return
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), STANDARD_ERROR)

            def lines() -> list[str]:
                file.seek(0)
                return file.read().decode(errors="replace").splitlines()

            yield lines
    finally:
        os.dup2(usual, STANDARD_ERROR)
        os.close(usual)
