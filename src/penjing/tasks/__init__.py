"""What a network is for: how a batch splits into inputs and targets, its loss, and a metric where higher is better."""

from penjing.tasks._classification import Classification
from penjing.tasks._evaluate import agreement, evaluate
from penjing.tasks._outputs import first_tensor
from penjing.tasks._task import Metric, Task
from penjing.tasks._unlabelled import Unlabelled

__all__ = ["Classification", "Metric", "Task", "Unlabelled", "agreement", "evaluate", "first_tensor"]
