"""Trains a graph to recover the accuracy that compression lost, with or without a teacher; runs on Accelerate."""

from penjing.training.interrupt import Interrupted
from penjing.training.loop import recover
from penjing.training.settings import TrainingSettings

__all__ = ["Interrupted", "TrainingSettings", "recover"]
