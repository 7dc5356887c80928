"""What an option costs: the expected increase of the task's loss, one unit for all techniques."""

from penjing.planning.damage.loss_increase import LossIncrease

__all__ = ["LossIncrease"]
