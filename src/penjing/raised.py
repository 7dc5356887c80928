"""What is said of an exception that the user's own code raised: its type, its text, and the line of theirs."""

import importlib
import os
import traceback

from penjing.errors import PenjingError


def raised(what: str, error: BaseException) -> PenjingError:
    """Returns the error that says that `what`, such as "net.py:make raised", ended with `error`."""
    message = str(error).strip().splitlines()
    kind = f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
    return PenjingError(f"{what} {kind}{_line(error)}")


def _line(error: BaseException) -> str:
    """Returns where it happened: the deepest frame in code that isn't installed, or else in code that isn't ours."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno}: {(error.text or '').strip()})"
    ours, installed = os.path.dirname(__file__) + os.sep, ("site-packages", os.path.dirname(os.__file__) + os.sep)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<frozen", importlib.__file__))
    ]
    own = [frame for frame in frames if not any(mark in frame.filename for mark in installed)] or frames
    return f" ({own[-1].filename}:{own[-1].lineno}: {own[-1].line})" if own else ""
