"""What a network is for: how a batch is split into inputs and targets, the loss, and a metric where higher is better."""

from penjing.tasks._classification import Classification
from penjing.tasks._evaluate import agreement, evaluate, likeness
from penjing.tasks._likeness import DECISIONS, EQUAL, R2, TOP_ONE, Likeness, answered, answers_of
from penjing.tasks._outputs import first_tensor
from penjing.tasks._positions import counted_of
from penjing.tasks._regression import Regression
from penjing.tasks._task import Metric, Task, metric_words, shown_metric
from penjing.tasks._unlabelled import Unlabelled

__all__ = [
    "DECISIONS",
    "EQUAL",
    "R2",
    "TOP_ONE",
    "Classification",
    "Likeness",
    "Metric",
    "Regression",
    "Task",
    "Unlabelled",
    "agreement",
    "answered",
    "answers_of",
    "counted_of",
    "evaluate",
    "first_tensor",
    "likeness",
    "metric_words",
    "shown_metric",
]
