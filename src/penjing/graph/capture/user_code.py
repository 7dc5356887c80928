"""Where in the user's own code something happened, and what stands there."""

import contextlib
import functools
import inspect
import logging
import os
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

# With the separator behind, as torchvision is no part of torch.
_LIBRARIES = (
    *(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, logging.__file__, __file__)),
    contextlib.__file__,
    functools.__file__,
)
_CAPTURE = str(Path(__file__).with_name("capture.py"))


def source_line(stack_trace: str) -> str:
    """Returns `file:line code` of the innermost frame that is not PyTorch's."""
    lines = stack_trace.splitlines()
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index].strip()
        if line.startswith('File "') and not any(library in line for library in _LIBRARIES):
            file, number = line.split('"')[1], line.split("line ")[1].split(",")[0]
            code = lines[index + 1].strip() if index + 1 < len(lines) else ""
            return f"{file}:{number} {code}".strip()
    return ""


def at_user_line(error: BaseException, before: str = "\n  at ") -> str:
    """Returns `before`, then `file:line code` of the innermost frame of the user's own code in the error's traceback; ""
    where none is of a file: all layers are PyTorch's own, or the code was typed into an interpreter.
    """
    line = innermost_line(traceback.extract_tb(error.__traceback__))
    return f"{before}{line}" if line else ""


def innermost_line(frames: Sequence[traceback.FrameSummary]) -> str:
    """Returns `file:line code` of the innermost frame of the user's own code; "" where nothing but libraries was at work
    since capture began.
    """
    for frame in reversed(frames):
        if frame.filename == _CAPTURE:
            break
        if not frame.filename.startswith((*_LIBRARIES, "<")):
            return f"{frame.filename}:{frame.lineno} {frame.line or ''}".strip()
    return ""


def first_line(error: BaseException) -> str:
    """Returns an error's type and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def lost_in_training(model: nn.Module) -> list[str]:
    """Names the modules whose own code asks for `self.training`: what it guards is absent from a graph of the
    evaluation mode (stochastic depth, auxiliary heads). PyTorch's own layers keep theirs, see `modes`.
    """
    found = []
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn."):
            continue
        try:
            source = inspect.getsource(type(module).forward)
        except (OSError, TypeError):  # a class made in an interpreter or in C has no source to look at
            continue
        if "self.training" in source:
            found.append(f"{path or '(the model)'}: {type(module).__name__}")
    return found
