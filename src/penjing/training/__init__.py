"""Trains a graph to recover the accuracy that compression lost, with or without a teacher; runs on Accelerate."""

from penjing.distillation import teachers
from penjing.training.born_again import Generations, born_again
from penjing.training.interrupt import Interrupted
from penjing.training.loop import recover
from penjing.training.settings import TrainingSettings

__all__ = ["Generations", "Interrupted", "TrainingSettings", "born_again", "recover", "teachers"]
