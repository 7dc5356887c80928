"""The call of `torch.export`: what is free, what is silenced, and one error for all that can go wrong."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from penjing.errors import PenjingError
from penjing.graph.capture.dynamic_axes import batch_size, dynamic_shapes, spelt_out_keywords
from penjing.graph.capture.user_code import at_user_line, first_line
from penjing.graph.recurrence import never_unrolled


class Uncapturable(PenjingError):
    """`torch.export` failed."""


def exported_program(
    model: nn.Module,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    dynamic: Mapping[str, Sequence[int]],
    *,
    free_batch: bool,
) -> tuple[ExportedProgram, fx.GraphModule]:
    """Returns what export gives, and its module."""
    batch = batch_size(args, keywords) if free_batch else None
    try:
        with warnings.catch_warnings(), _quiet_export(), spelt_out_keywords(model, keywords), never_unrolled():
            warnings.simplefilter("ignore")
            shapes = dynamic_shapes(model, args, keywords, dynamic, batch)
            exported = torch.export.export(model, args, keywords, dynamic_shapes=shapes, strict=False)
            return exported, exported.module(check_guards=False)
    except Exception as error:
        raise Uncapturable(
            f"torch.export can't capture {type(model).__name__}: {first_line(error)}{at_user_line(error)}"
        ) from error


@contextmanager
def _quiet_export() -> Iterator[None]:
    """Silences export's own log and prints, which repeat a failure over many screens before raising it."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.fx", "torch._dynamo", "torch._export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
