"""The processes that train one model together: who is the first of them, and what is said when one is gone."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from penjing.errors import PenjingError

# Words of the errors that gloo and NCCL raise in a process that waits for one that is gone.
LOST = re.compile(r"gloo/|nccl|connection (closed|reset) by peer|broken pipe", re.IGNORECASE)


def accelerator() -> Accelerator:
    """Returns Accelerate's view of this process: its device, and the processes that train with it.

    Raises:
        PenjingError: a launcher started several processes, and Accelerate would let each train alone.
    """
    made = Accelerator(mixed_precision="no")  # precision is autocast's, see Objective
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if "LOCAL_RANK" in os.environ and launched > 1 and made.num_processes == 1:
        raise PenjingError(
            f"This is one of {launched} processes, but Accelerate finds no GPU for it, so each would train alone and write the "
            "same file. To train on the CPU in all of them, set ACCELERATE_USE_CPU=true before the launcher starts."
        )
    return made


def check_agreement(us: Accelerator, checkpoint: Path | None, step: int | None) -> None:
    """Makes sure that all processes begin at the same step.

    Args:
        us: the processes.
        checkpoint: where they keep their state.
        step: the one that this process found there; None where it found nothing.

    Raises:
        PenjingError: they found different steps, so they don't read the same file.
    """
    if us.num_processes == 1 or checkpoint is None:
        return
    found = gather_object([step])
    if len(set(found)) > 1:
        said = ", ".join("none" if one is None else f"step {one}" for one in found)
        raise PenjingError(
            f"The {len(found)} processes don't find the same checkpoint at {checkpoint} ({said}): it must lie in a folder that "
            "all machines share."
        )


@contextmanager
def together(checkpoint: Path | None, log: Callable[[str], None]) -> Iterator[None]:
    """Lets a training in several processes end with a clear error when one of them has gone; does nothing for a single one.

    Raises:
        PenjingError: another process has gone, or the launcher stops this one because another has.
    """
    us = accelerator()
    if us.num_processes == 1:
        yield
        return
    if us.is_main_process:
        log(f"{us.num_processes} processes train together; each takes one of {us.num_processes} batches.")
    kept = (
        "" if checkpoint is None else f" {checkpoint} holds what was saved last: the same command goes on from there."
    )

    def stop(number: int, frame: FrameType | None) -> Any:
        raise PenjingError(f"The launcher stopped this process, as it does when another one has ended.{kept}")

    in_main = threading.current_thread() is threading.main_thread()  # Python delivers signals to it alone
    after = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    except (RuntimeError, PenjingError) as error:
        if not _is_loss(error):
            raise
        # The launcher's signal comes within a tenth of a second, and would end this process before it could say why. What stays
        # in spite of the signal, the launcher kills later.
        after = signal.SIG_IGN
        raise PenjingError(f"Another process of this training has ended, so this one can't go on.{kept}") from error
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, after)


def _is_loss(error: BaseException | None) -> bool:
    """Tells whether an error says, itself or in its causes, that another process can't be reached."""
    while error is not None:
        lost = isinstance(error, torch.distributed.DistError)
        if lost or (type(error) is RuntimeError and LOST.search(str(error))):
            return True
        error = error.__cause__ or error.__context__
    return False
