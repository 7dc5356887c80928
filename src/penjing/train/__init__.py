"""Training a graph: recovery of what compression lost, with or without a teacher, on Accelerate."""

from penjing.train.interrupt import Interrupted
from penjing.train.loop import recover
from penjing.train.settings import Settings

__all__ = ["Interrupted", "Settings", "recover"]
