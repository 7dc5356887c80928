"""Explains why a model runs with one batch size only: the line that fixes the size, and what to write there instead."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from penjing.errors import PenjingError
from penjing.graph.capture.user_code import at_user_line, first_line, innermost_line

GUARDS = "torch.fx.experimental.symbolic_shapes"  # PyTorch's logger that reports each size that the model's code reads
ADDED = "[guard added]"

ADVICE = (
    "len(x), int(x.shape[0]), a Python loop over the samples, and shapes or constants of that very size fix it: take "
    "x.shape[0] or x.size(0) as it is, -1 for it in a shape, and an op over the whole batch for a loop."
)


class _Notes(logging.Handler):
    """Records each assumption that export makes about a size, with the user's line that was running."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if ADDED in text:
            self.found.append((text.partition(ADDED)[0], innermost_line(list(traceback.extract_stack()))))


@contextmanager
def noting_sizes() -> Iterator[list[tuple[str, str]]]:
    """Gives a list that fills with each assumption `torch.export` makes about sizes and the user's line that causes it."""
    logger, notes = logging.getLogger(GUARDS), _Notes()
    before = logger.level, logger.propagate, list(logger.handlers)
    logger.setLevel(logging.INFO)
    logger.propagate, logger.handlers = False, [notes]
    try:
        yield notes.found
    finally:
        logger.level, logger.propagate, logger.handlers = before
        logger.setLevel(before[0])


def why_fixed(name: str, tried: int, batch: int, error: Exception | None, sizes: list[tuple[str, str]]) -> str:
    """Says why a model was captured for one batch size, and how to change that.

    Args:
        name: the model's name.
        tried: the batch size at which the model was exported.
        batch: the batch size for which the model was captured.
        error: the error that the model, or its comparison with the graph, raised at another batch size; None if there
            was none.
        sizes: pairs of an assumption that export made about sizes and the user's line, in order.
    """
    said = f"{name} was captured for batches of {batch} alone"
    if error is not None and not isinstance(error, PenjingError):
        return f"{said}: at another size it fails{at_user_line(error, ' at ')} ({first_line(error)}). {ADVICE}"
    lines = [(text, line) for text, line in sizes if line]
    exact = [line for text, line in lines if "Eq(" in text and f", {tried})" in text]
    line = next(iter(exact or [line for _, line in lines]), "")
    if line:
        return f"{said}: its code looks at the size at {line}. {ADVICE}"
    return f"{said}{'' if error is None else f' ({error})'}. {ADVICE}"
