"""Training a graph: recovery of what compression lost, with or without a teacher, on Accelerate."""

from penjing.training.interrupt import Interrupted
from penjing.training.loop import recover
from penjing.training.settings import TrainingSettings

__all__ = ["Interrupted", "TrainingSettings", "recover"]
