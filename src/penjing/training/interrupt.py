"""Ctrl-C that waits for the end of a step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C, after a whole step; the graph holds the weights of that step, in eval mode.

    The class derives from KeyboardInterrupt, so that code which doesn't know it stops too. If a checkpoint path was given,
    calling `recover` again continues the training.

    Attributes:
        progress: the share of the steps that were done, 0 to 1.
    """

    def __init__(self, progress: float) -> None:
        super().__init__(f"training was interrupted at {progress:.0%}")
        self.progress = progress


@contextmanager
def ctrl_c_sets_a_flag() -> Iterator[threading.Event]:
    """Yields an event that the first Ctrl-C sets; a second Ctrl-C interrupts at once, as usual.

    Python delivers signals to the main thread only, so in any other thread the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
